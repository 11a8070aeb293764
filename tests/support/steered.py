"""A sweep `curve` that people steer through commands, beside a driver at work and without one."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.commands import run_here
from support.curve_sweep import CurveSweep

from posetune.home import Home
from posetune.study.reading import read_sweep
from posetune.study.tables.database import Database, open_database
from posetune.study.view import SweepView
from posetune.testing.toy import Toy, ToyConfig

__all__ = ["SWEEP_FILE", "DecayingToy", "Steered"]

SWEEP_FILE = """\
trainable: posetune.testing.toy:Toy
store: {store}
objective: {{metric: val/error_mm, mode: min}}
search: {{x: {{float: [0.01, 1]}}}}
fixed: {{curve: "9,8,7,6,1,2,3,4,5"}}
sampler: {{name: random}}
pruner: {{name: none, max_epochs: 9}}
budget: {{trials: {trials}}}
"""


class Steered:
    """A sweep `curve` with two trials, the first complete, and the commands beside it."""

    def __init__(self, folder: Path, store: Path, address: str) -> None:
        self.folder, self.store, self.address = folder, store, address
        self.home = Home.resolve(folder / "home").prepare()
        self.database: Database = open_database(address)
        self.file = folder / "curve.yaml"
        self.file.write_text(SWEEP_FILE.format(store=store, trials=4))

    def drive(self, **more: Any) -> CurveSweep:
        """Begin a driver; `more` replaces keys of its sweep file."""
        changes = {"budget": {"trials": 4}, "pruner": {"name": "none", "max_epochs": 9}}
        return CurveSweep(self.database, self.home, self.store, **{**changes, **more})

    def command(self, *words: object, person: str = "ana@laptop") -> Any:
        environment = {"POSETUNE_DATABASE": self.address, "POSETUNE_PERSON": person}
        return run_here(*words, folder=self.folder, environment=environment)

    def done(self, *words: object, person: str = "ana@laptop") -> dict[str, Any]:
        result = self.command(*words, "--json", person=person)
        assert result.returncode == 0, result.stderr
        said: dict[str, Any] = json.loads(result.stdout)
        return said

    def view(self) -> SweepView:
        return read_sweep(self.database, "curve")

    @contextlib.contextmanager
    def driver_at_work(self) -> Iterator[CurveSweep]:
        """A driver that takes requests up in a thread, as its loop does, while the block runs."""
        sweep, over = self.drive(), threading.Event()

        def look() -> None:
            while not over.wait(0.02):
                sweep.run.take_up_requests()

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield sweep
        finally:
            over.set()
            thread.join()
            sweep.run.lease.release()


class DecayingToy(Toy):
    """The toy, with a word to say on the learning rates of further epochs."""

    @classmethod
    def note_of_extension(cls, config: ToyConfig) -> str:
        """Say that the learning rate has fallen to 0."""
        return f"the learning rate has fallen from {config.x:g} to 0 by then"
