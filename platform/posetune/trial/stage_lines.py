"""Tells how far a trial is that builds a shared stage before it trains.

The trial's process writes a line into the trial's log every few seconds; whoever shows the sweep
reads the newest one there.
"""

from __future__ import annotations

import contextlib
import time

from posetune.storage import Log, Storage
from posetune.trial.checkpoints import log_file

__all__ = ["StageLines", "StageNews"]

EVERY_S = 10.0
_BEGINS = "stage "
"""Beginning of the note on a stage's progress, and so of its line in the log."""


class StageLines:
    """Writes into a trial's log how far its stages are; a `Progress` that leaves epochs out."""

    def __init__(self, log: Log, *, every_s: float = EVERY_S) -> None:
        """Write into a log, a line every so many seconds."""
        self._log, self._every_s = log, every_s
        self._written = time.monotonic()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Write a line if the last one is old enough; where there is no space, none."""
        now = time.monotonic()
        if not note.startswith(_BEGINS) or now - self._written < self._every_s:
            return
        self._written = now
        with contextlib.suppress(OSError):
            with self._log.file.open("a", encoding="utf-8") as file:
                file.write(f"{note.rstrip()} ({done} of {total})\n")
            self._log.keep()


class StageNews:
    """Reads in the logs of a sweep's trials how far their stages are."""

    def __init__(self, storage: Storage, sweep: str) -> None:
        """Look at the logs of one sweep."""
        self._storage, self._sweep = storage, sweep
        self._read: dict[int, int] = {}
        """Bytes of each trial's log that were read already."""
        self._newest: dict[int, str] = {}

    def of(self, trial: int) -> str:
        """Return the newest line of a trial's log that tells of a stage; "" if there is none."""
        log, start = log_file(self._sweep, trial), self._read.get(trial, 0)
        new = self._storage.read_log(log, start)
        whole = new[: new.rfind(b"\n") + 1]
        self._read[trial] = start + len(whole)
        for line in whole.decode(errors="replace").splitlines():
            if line.startswith(_BEGINS):
                self._newest[trial] = line
        return self._newest.get(trial, "")
