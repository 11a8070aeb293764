"""The end of a sweep that stops early, or of a node: trials save where they are, if quickly.

The driver cannot call a worker that is in the middle of an epoch, and a signal does not reach
another node; a file in storage does. Workers look for it between steps.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from posetune.storage import Storage
from posetune.trial.checkpoints import stop_file

__all__ = ["HAND_OVER_S", "HandOverRequest", "Preemption"]

LOOK_S = 0.5
"""Between two looks for the driver's wish to stop."""

HAND_OVER_S = 3.0
"""How long the trials have; who is slower repeats the epoch."""


class Preemption:
    """Asks the trials at work to save and stop, once there is a reason."""

    def __init__(self, storage: Storage, sweep: str, reason: Callable[[], str]) -> None:
        self.at_work: dict[int, Callable[[], None]] = {}
        """For each trial that trains what kills its worker; the scheduler keeps it."""
        self._storage, self._sweep, self._file = storage, sweep, stop_file(sweep)
        self._reason = reason
        self._asked_at: float | None = None
        self._left: dict[str, str] = {}
        """The stop file of each node that trials were asked to leave."""
        self._storage.remove(self._file)

    @property
    def asked(self) -> bool:
        """Whether the trials were asked."""
        return self._asked_at is not None

    def is_over(self) -> bool:
        """Whether the sweep can stop now; asks the trials at the first call with a reason."""
        if self._asked_at is None:
            if not self._reason():
                return False
            self._asked_at = time.monotonic()
            self._touch(self._file)
        if time.monotonic() - self._asked_at > HAND_OVER_S:
            while self.at_work:  # Tune would wait ten seconds more for them
                self.at_work.popitem()[1]()
        return not self.at_work

    def leave(self, node: str) -> None:
        """Ask the trials on one node to save and go on elsewhere."""
        if node not in self._left:
            self._left[node] = stop_file(self._sweep, node)
            self._touch(self._left[node])

    def close(self) -> None:
        """Take the wishes back."""
        for file in (self._file, *self._left.values()):
            self._storage.remove(file)

    def _touch(self, file: str) -> None:
        with contextlib.suppress(OSError):  # no space: the epoch is repeated then
            self._storage.touch(file)


class HandOverRequest:
    """The driver's wish to stop, as a worker sees it; looked for beside the training."""

    def __init__(self, storage: Storage, sweep: str, *, node: str) -> None:
        self.is_there = False
        self._storage, self._files = storage, (stop_file(sweep), stop_file(sweep, node))
        self._closed = threading.Event()
        threading.Thread(target=self._look, name="stop-file", daemon=True).start()

    def _look(self) -> None:
        while not self.is_there and not self._closed.wait(LOOK_S):
            with contextlib.suppress(OSError):
                self.is_there = any(self._storage.exists(file) for file in self._files)

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
