"""Drives real sweeps by events: what the study holds, what a log says, where a toy trial stands.

Nothing here ends after a time but where a test would otherwise hang for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, TypeVar

from support.commands import command_environment
from support.simulated_driver import happened

from posetune.api import BadInputError
from posetune.study.events import HandedOver
from posetune.study.reading import read_sweep
from posetune.study.tables.database import Database, open_database
from posetune.study.view import SweepView

__all__ = ["Driver", "Script", "beside", "events", "open_study", "partial_seconds", "until", "view"]

HANG_S = 300.0
"""After this long a test gives up; whatever it waits for takes seconds, on a busy machine too."""

PATIENT = """
from posetune.cli import main
from posetune.execution import preemption

preemption.HAND_OVER_S = 200.0  # the saving is the point, not how fast this machine does it
main()
"""

Found = TypeVar("Found")
Kind = TypeVar("Kind")


def until(holds: Callable[[], Found], *, lives: Callable[[], bool] = lambda: True) -> Found:
    """Wait for something to hold and return it.

    Args:
        holds: asked again and again, until it returns something true.
        lives: whether that can still come; asked after `holds`.
    """
    deadline = time.monotonic() + HANG_S
    while True:
        lived = lives()
        found = holds()
        if found:
            return found
        assert lived, "what the test waits for can no longer come"
        assert time.monotonic() < deadline, "what the test waits for does not come"
        time.sleep(0.05)


@contextmanager
def open_study(home: Path) -> Iterator[Database]:
    """Open the study of a home for a block.

    Raises:
        BadInputError: there is none yet.
    """
    database = open_database(f"sqlite:///{home / 'study.db'}", create=False)
    try:
        yield database
    finally:
        database.close()


def view(home: Path, name: str = "s") -> SweepView | None:
    """Return a sweep as its study has it, None where nothing has been written yet."""
    with contextlib.suppress(ValueError, BadInputError), open_study(home) as database:
        return read_sweep(database, name)
    return None


def events(home: Path, kind: type[Kind], name: str | None = None) -> list[Kind]:
    """Return the events of a kind in order, of one sweep or of all; none without a study."""
    with contextlib.suppress(BadInputError), open_study(home) as database:
        return happened(database, kind, name)
    return []


def partial_seconds(home: Path) -> list[float]:
    """Return what was trained of each epoch within which a trial was handed over, s."""
    saved = [event.checkpoint.partial_s for event in events(home, HandedOver)]
    return [seconds for seconds in saved if seconds is not None]


class Script:
    """What toy trials do in the middle of their epochs, one line each time; see `ToyConfig`."""

    def __init__(self, file: Path, *lines: str) -> None:
        self.file, self._go = file, file.with_suffix(".go")
        text = "".join(f"{line}\n" for line in lines)
        file.write_text(text.replace("wait", f"wait {self._go}"))

    @property
    def lines(self) -> list[str]:
        """What is left of it."""
        return self.file.read_text().splitlines()

    def is_over(self) -> bool:
        """Whether its last line was taken: a trial is where that says."""
        return not self.lines

    def let_go(self) -> None:
        """Let everything go on that waits, now or later."""
        self._go.touch()


class Driver:
    """A command in a process group of its own, with its output in a file."""

    _started: ClassVar[list[Driver]] = []

    @classmethod
    def kill_all(cls) -> None:
        """End whatever was started here and still lives: a test that failed leaves it behind."""
        for driver in list(cls._started):
            driver.kill()

    def __init__(
        self, folder: Path, *arguments: object, patient: bool = False, **environment: str
    ) -> None:
        """Start it; its home is `home` in the folder.

        Args:
            folder: where it runs.
            arguments: the words behind `posetune`.
            patient: give trials as long as they need to save, when it is told to stop.
            environment: more variables for it.
        """
        self._log = folder / "driver.log"
        start = ["-c", PATIENT] if patient else ["-m", "posetune.cli"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, *start, *map(str, arguments)],
                cwd=folder,
                env={**command_environment(folder), **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(self)

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        """The id of its process, which is that of its session as well."""
        return self._process.pid

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def until(self, holds: Callable[[], Found]) -> Found:
        """Wait for something that can only come while it lives."""
        try:
            return until(holds, lives=lambda: self.lives)
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}; the driver has said:\n{self.output}") from error

    def end(self, number: signal.Signals | None = None) -> int:
        """Wait for its end, after a signal if one is given, and return its exit code."""
        if number is not None:
            self._process.send_signal(number)
        try:
            return self._process.wait(HANG_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it with its whole process group, as a power cut does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self in self._started:
            self._started.remove(self)


@contextmanager
def beside(act: Callable[[], Any]) -> Iterator[None]:
    """Do something in a thread while the block runs a sweep in this process.

    Where that fails, the sweep is interrupted, and the block raises what went wrong. A signal
    that the sweep does not take fails the test: else it would end the process of the tests.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - raised where the sweep has ended
            failures.append(error)
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=run, name="beside", daemon=True)
    with _signals_that_fail():
        thread.start()
        try:
            yield
        finally:
            thread.join(HANG_S)
            if failures:
                raise failures[0]
    assert not thread.is_alive(), "what was to be done beside the sweep is not done"


@contextmanager
def _signals_that_fail() -> Iterator[None]:
    def fail(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"{signal.Signals(number).name} came while no sweep took it")

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, fail) for number in numbers}
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])
