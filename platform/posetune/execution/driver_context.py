"""Holds what searcher and scheduler share: study, store and storage, and why the sweep may stop."""

from __future__ import annotations

import contextlib
import math
import signal
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from posetune.api import Trainable
from posetune.execution.preemption import Preemption
from posetune.home import Home
from posetune.signals import take_signals
from posetune.storage import StorageError
from posetune.storage.store_place import StorePlace
from posetune.study.driving.sweep import Attempt, SweepRun
from posetune.study.sharing.turn import ClusterTurn
from posetune.trial.checkpoints import drop_checkpoints, drop_orphans
from posetune.trial.run import Assignment

__all__ = ["REQUESTS_S", "DriverContext", "StopRequest"]

REQUESTS_S = 1.0
"""Seconds between two looks for what people want of the sweep."""


class StopRequest:
    """Says whether and why the sweep should stop before its end."""

    def __init__(self) -> None:
        self.reason = ""
        self.asked_by_user = self.refused = self.failed = False
        self.also: Callable[[], None] = lambda: None
        """A function that is called when a signal asks to stop."""
        self.last_words: Callable[[str], None] = lambda reason: None
        """A function that tells people why the driver's process is ended at once."""

    def refuse(self, reason: str) -> None:
        """Stop the sweep because no trial can go on; open trials stay open."""
        self.reason = reason
        self.refused = True

    def heed(self, asked: str) -> None:
        """Stop the sweep if somebody has asked its driver to; `asked` says who."""
        if asked and not self.reason:
            self.reason = f"stopped by {asked}"
            self.asked_by_user = True

    def fail(self, reason: str) -> None:
        """Stop the sweep because this machine cannot go on with it; open trials stay open."""
        self.reason = self.reason or reason
        self.failed = True

    def on_signals(self) -> AbstractContextManager[None]:
        """Let SIGINT and SIGTERM ask for a clean stop; a second SIGINT interrupts at once."""
        return take_signals(self._take_signal)

    def _take_signal(self, number: signal.Signals) -> bool:
        self.reason = f"stopped by {number.name}"
        self.asked_by_user = True
        self.also()
        return True


class DriverContext:
    """Holds what one driver needs while it runs one sweep."""

    def __init__(
        self,
        run: SweepRun,
        trainable: type[Trainable],
        *,
        store: StorePlace,
        home: Home,
        stopping: StopRequest,
        turn: ClusterTurn,
    ) -> None:
        self.run = run
        self.trainable = trainable
        self.home = home
        self.stopping = stopping
        self.turn = turn
        self.store = store
        # Deleting on S3 or NFS takes its time, and the driver must not wait for it.
        self._cleaner = ThreadPoolExecutor(1, "cleaner")
        self.preemption = Preemption(home.storage, run.name, self.stop_reason)
        self.unplaced: set[int] = set()
        """Numbers of the trials that were given to Tune and have not begun to train."""
        self._looked = -math.inf

    def stop_reason(self) -> str:
        """Return why the sweep should stop now; empty while it should not."""
        self.stopping.heed(self.run.lease.stop_asked)
        run = self.run
        return self.stopping.reason or run.broken or run.spent or run.held

    def take_up_requests(self) -> None:
        """Do what people want of the sweep, now and then.

        Once the trials were asked to stop, the requests wait until none is at work any more.
        """
        now = time.monotonic()
        if now - self._looked < REQUESTS_S or self.preemption.asked:
            return
        self._looked = now
        self.run.take_up_requests()
        for number in self.run.releasing:
            self.release(number)

    def let_others_pass(self) -> bool:
        """Give up the places that trials wait for, where all slots are others'; say if any was.

        Call it only where none of the sweep's trials has a place: one that has gives it back after
        its epoch.
        """
        if not self.unplaced or self.turn.entitled != 0 or self.preemption.asked:
            return False
        for number in sorted(self.unplaced):
            self.run.give_back(number, self.turn.why)
        return True

    def assign(self, attempt: Attempt) -> Assignment:
        """Return what an attempt's process needs to know."""
        if attempt.crashes:
            # The dead worker may have written what nobody committed. If storage is away, the next
            # start of a driver deletes it.
            with contextlib.suppress(StorageError):
                drop_orphans(
                    self.home.storage, self.run.name, attempt.checkpoints, trial=attempt.trial
                )
        lasted = [trial.last_s for trial in self.run.trials if trial.epoch]
        return Assignment(
            sweep=self.run.name,
            trial=attempt.trial,
            attempt=attempt.number,
            seed=attempt.seed,
            params=attempt.params,
            spec=self.run.spec_of(attempt.trial),
            store=self.store,
            storage=self.home.storage,
            checkpoints=attempt.checkpoints,
            parent=attempt.parent,
            median_epoch_s=statistics.median(lasted) if lasted else 0.0,
            stage_keys=self.run.stage_keys,
        )

    def release(self, number: int) -> None:
        """Delete the checkpoints of a trial that nothing needs any more, in a thread."""
        released = self.run.release_checkpoints(number)
        if released:
            self._cleaner.submit(drop_checkpoints, self.home.storage, released)

    def close(self) -> None:
        """Wait until everything is deleted, and withdraw the request to stop.

        A driver that was told to stop does not wait: what is left, the next one deletes.
        """
        self._cleaner.shutdown(cancel_futures=bool(self.stopping.reason))
        self.preemption.close()
