"""Asks trials to save where they are, when their sweep stops early or their node goes away.

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
"""Seconds between two looks for the file that asks trials to stop."""

HAND_OVER_S = 3.0
"""Seconds that the trials have to save; a slower one repeats its epoch later."""


class Preemption:
    """Asks the trials at work to save and stop, once there is a reason."""

    def __init__(self, storage: Storage, sweep: str, reason: Callable[[], str]) -> None:
        self.at_work: dict[int, Callable[[], None]] = {}
        """Function that kills the worker of each trial that trains; the scheduler fills it in."""
        self._storage = storage
        self._sweep = sweep
        self._reason = reason
        self._file = stop_file(sweep)
        self._asked_at: float | None = None
        self._left: dict[str, str] = {}
        """Stop file of each node that trials were asked to leave, by the node's id."""
        self._storage.remove(self._file)

    @property
    def asked(self) -> bool:
        """Whether the trials were asked to stop."""
        return self._asked_at is not None

    def is_over(self) -> bool:
        """Return whether the sweep can stop now; the first call with a reason asks all trials."""
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
        """Delete the stop files."""
        for file in (self._file, *self._left.values()):
            self._storage.remove(file)

    def _touch(self, file: str) -> None:
        with contextlib.suppress(OSError):  # no space: the epoch is repeated then
            self._storage.touch(file)


class HandOverRequest:
    """Looks for the driver's stop files in a thread beside the training of a worker."""

    def __init__(self, storage: Storage, sweep: str, *, node: str) -> None:
        self.is_there = False
        self._storage = storage
        self._files = (stop_file(sweep), stop_file(sweep, node))
        self._closed = threading.Event()
        threading.Thread(target=self._look, name="stop-file", daemon=True).start()

    def _look(self) -> None:
        while not self.is_there and not self._closed.wait(LOOK_S):
            with contextlib.suppress(OSError):
                self.is_there = any(self._storage.exists(file) for file in self._files)

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()
