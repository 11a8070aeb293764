"""What a sweep makes of workers that are gone and could say nothing themselves."""

from __future__ import annotations

import contextlib
import time

from posetune.execution.driver_context import StopRequest
from posetune.execution.tune_adapter import WorkerDeath
from posetune.storage import Storage, StorageError
from posetune.study.driving.sweep import SweepRun
from posetune.study.faults import Fault, FaultKind
from posetune.trial.checkpoints import stuck_file

__all__ = ["WorkerDeaths"]

DIED = "died"
"""What stands for the type of an error where a worker died."""

STUCK = "an epoch without any progress for too long; the trial's log shows where it was"
"""What is said of a worker that was killed because its epoch was stuck."""

MOST_UNSTARTED = 20
"""Number of workers in a row that Ray may fail to start before the sweep ends."""

UNSTARTED_S = 1.0
"""Seconds between such a failure and the next try."""


class WorkerDeaths:
    """Judges the deaths of one sweep's workers."""

    def __init__(self, run: SweepRun, storage: Storage, stopping: StopRequest) -> None:
        self._run, self._storage, self._stopping = run, storage, stopping
        self._unstarted = 0
        """Number of workers in a row that Ray has not started."""

    def one_has_started(self) -> None:
        """Note that Ray starts workers."""
        self._unstarted = 0

    def excuse_unstarted(self, number: int, attempt: int, death: WorkerDeath) -> None:
        """Excuse a trial whose worker never ran, and give Ray a moment.

        Where that goes on, the sweep ends; its trials stay open.
        """
        self._run.excuse(number, attempt, f"Ray did not start its worker: {death.words}")
        self._unstarted += 1
        if self._unstarted >= MOST_UNSTARTED:
            self._stopping.fail(
                f"Ray starts no worker, {self._unstarted} times in a row: {death.words}"
            )
        time.sleep(UNSTARTED_S)

    def fault_of(self, number: int, attempt: int, death: WorkerDeath) -> Fault:
        """Return the fault of an attempt whose worker has run and died."""
        mark = stuck_file(self._run.name, number, attempt)
        with contextlib.suppress(StorageError):
            if self._storage.exists(mark):
                self._storage.remove(mark)
                return Fault(FaultKind.STUCK, "stuck", "", STUCK)
        return Fault(FaultKind.CRASH, DIED, "", death.words)
