"""Runs a sweep for its driver: asks, reports, decisions and reconciliation, without Ray.

`SweepRun` commits one event in one transaction, and only then applies it to its `SweepState`; the
caller acts on what is returned. What an event says is decided by `decisions.Decider`, what it means
by `state.SweepState.apply`. So a driver may be killed between any two lines: the next one, started
by the same command, folds the committed events and stands where the last commit left it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from posetune.api import BadInputError
from posetune.spec.sweep import SweepSpec
from posetune.study.budget_rule import BudgetRule
from posetune.study.decisions import Decider
from posetune.study.events import (
    SEMANTICS,
    BaselinesMeasured,
    DriverClosed,
    DriverOpened,
    EpochRepeated,
    Event,
    HandedOver,
    MemoryPeaked,
    Reported,
    RoomAwaited,
    ShareMeasured,
    StageUsed,
    TrialEnded,
)
from posetune.study.old.upgrade import upgrade_before_driving
from posetune.study.records import Attempt, CheckpointRecord
from posetune.study.search.rungs import Decision
from posetune.study.search.sampler import SearchMemory
from posetune.study.search.start_from import prior_trials
from posetune.study.state import SweepState
from posetune.study.states import TrialState
from posetune.study.sweep_start import SweepStart, check_unchanged, create_once
from posetune.study.tables import journal
from posetune.study.tables.database import Database
from posetune.study.tables.lease import Lease
from posetune.study.trials import TrialRecord
from posetune.study.view import SweepView, read_sweep

__all__ = ["Attempt", "StaleAttemptError", "SweepRun", "SweepStart"]


class StaleAttemptError(RuntimeError):
    """A report came from an attempt that has been replaced; it is not counted."""


class SweepRun:
    """A sweep under way; one driver at a time."""

    def __init__(
        self, database: Database, start: SweepStart, clock: Callable[[], float] = time.time
    ) -> None:
        """Start the sweep, or continue it where its events end.

        Args:
            database: the study; one of the version before is upgraded, where it is SQLite.
            start: the sweep.
            clock: when events happen, in seconds since the epoch.

        Raises:
            BadInputError: the sweep exists with another file or store, or has a live driver, or
                was begun by a newer posetune.
        """
        self.name = start.name
        self.notice = ""
        """What trials wait for besides a place on the cluster, as a sentence for people."""
        self._database, self._clock = database, clock
        self._defaults = dict(start.defaults)
        upgrade_before_driving(database)
        with database.reading() as connection:
            row = journal.find_sweep(connection, start.name)
        self.id = create_once(database, start, clock()) if row is None else int(row["id"])
        self.lease = Lease(database, self.id, self.name)
        try:
            self.state = self._read(start)
        except BaseException:
            self.lease.release()
            raise
        self._decider = Decider(self.state, clock)
        self.stage_keys = _by_stage(self.state.trials)
        """Keys of the stage products that trials used before this driver, by stage."""
        prior = prior_trials(self.state.prior)
        self._memory = SearchMemory(self.state.spec, self.state.trials, prior)
        self._handed_out: set[int] = set()
        """Open trials that the caller was given, and has not begun an attempt at."""
        self._released: dict[int, list[CheckpointRecord]] = {}
        """The checkpoints of each trial that nothing needs any more, until they are deleted."""
        self._commit(DriverOpened(clock(), start.spec.budget.model_dump(), start.commit))
        for number in self._decider.missing_ends():
            self.finish(number)

    # -- what the searcher asks ------------------------------------------------------------

    def next_trial(self) -> TrialRecord | None:
        """Return the next trial to run: open ones first, then a new one; None when none is left.

        The budget may leave room for none now, and for some when others have ended.
        """
        trial = self._decider.open_trial(self._handed_out)
        if trial is not None:
            self._handed_out.add(trial.number)
            return trial
        if not self._decider.may_ask(self._handed_out):
            return None
        number = len(self.trials)
        params = self._memory.ask(number) if number else self._defaults
        self._commit(self._decider.ask(params))
        return self.trials[number]

    @property
    def left(self) -> int:
        """Number of trials that are still to be started or continued."""
        waiting = [n for n in self.state.waiting if n not in self._handed_out]
        return len(waiting) + self.spec.budget.trials - len(self.trials)

    @property
    def may_start(self) -> bool:
        """Whether there is a trial left that the budget has room for."""
        has_open = self._decider.open_trial(self._handed_out) is not None
        return has_open or self._decider.may_ask(self._handed_out)

    def begin_attempt(self, number: int) -> Attempt:
        """Begin the next attempt of a trial; reports of older ones are refused from now on."""
        self._commit(self._decider.begin_attempt(number))
        self._handed_out.discard(number)
        trial = self.trials[number]
        return Attempt(
            trial=number,
            number=trial.attempt,
            crashes=trial.crashes,
            seed=trial.seed,
            params=trial.params,
            checkpoints=tuple(reversed(trial.checkpoints)),
        )

    # -- what the scheduler reports --------------------------------------------------------

    def report(
        self,
        number: int,
        attempt: int,
        *,
        epoch: int,
        metrics: Mapping[str, float],
        seconds: float,
        checkpoint: CheckpointRecord | None,
    ) -> Decision:
        """Commit a report with its rung decision and checkpoint; return the decision.

        An epoch that was reported before (it was trained again after its checkpoint was lost)
        keeps its stored value and decision; only the checkpoint is new.

        Raises:
            StaleAttemptError: the attempt has been replaced.
        """
        trial = self._current(number, attempt)
        event = self._decider.report(
            number, epoch=epoch, metrics=metrics, seconds=seconds, checkpoint=checkpoint
        )
        self._commit(event)
        return event.decision if isinstance(event, Reported) else trial.decided(epoch)

    def goes_on(self, number: int) -> bool:
        """Whether the budget lets a trial train on after a report; otherwise it is set aside."""
        event = self._decider.set_aside(number)
        if event is not None:
            self._commit(event)
        return event is None

    def started(self, number: int, attempt: int, *, facts: Mapping[str, Any]) -> None:
        """Record where an attempt runs.

        Raises:
            StaleAttemptError: the attempt has been replaced.
        """
        self._current(number, attempt)
        self._commit(self._decider.place(number, facts))

    def hand_over(self, number: int, attempt: int, *, checkpoint: CheckpointRecord) -> None:
        """Commit the checkpoint of an attempt that was told to stop within an epoch.

        Raises:
            StaleAttemptError: the attempt has been replaced.
        """
        self._current(number, attempt)
        self._commit(self._decider.hand_over(number, checkpoint))

    def excuse(self, number: int, attempt: int, why: str) -> None:
        """Record that an attempt ended by no fault of its trial: it does not count as a crash."""
        self._commit(self._decider.excuse(number, attempt, why))

    def finish(self, number: int) -> None:
        """Commit the end that the last report decided: COMPLETE or PRUNED."""
        self._commit(self._decider.finish(number))

    def fail(self, number: int, reason: str) -> None:
        """Commit that a trial failed for good."""
        self._commit(self._decider.fail(number, reason))

    def stage_used(self, number: int, stage: str, *, key: str, trained: bool) -> None:
        """Record which stage product a trial used, once, and whether it was trained for it."""
        if stage not in self.trials[number].stages:
            self._commit(StageUsed(self._clock(), number, stage, key, trained))

    def baselines(self, baselines: Mapping[str, float]) -> None:
        """Record the trivial baselines on validation, once."""
        if baselines and not self.has_baselines:
            self._commit(BaselinesMeasured(self._clock(), dict(baselines)))

    def release_checkpoints(self, number: int) -> list[CheckpointRecord]:
        """Return the checkpoints of a trial that nothing needs any more, once."""
        return self._released.pop(number, [])

    # -- what the cluster says -------------------------------------------------------------

    def share(self, gpu: float, **facts: int) -> None:
        """Record the part of a GPU that each trial takes from now on, and what was measured."""
        self._commit(ShareMeasured(self._clock(), gpu, **facts))

    def peaked(self, number: int, peak_bytes: int) -> None:
        """Record that a trial has taken more of its GPU's memory than was measured before."""
        self._commit(MemoryPeaked(self._clock(), number, peak_bytes))

    def wait_for_room(self, what: str) -> None:
        """Record what a trial without a place waits for; empty when none waits any more."""
        self._commit(RoomAwaited(self._clock(), what))

    # -- where it stands -------------------------------------------------------------------

    @property
    def spec(self) -> SweepSpec:
        """The sweep file, with the budget of now and the part of a GPU that was measured."""
        return self.state.spec

    @property
    def trials(self) -> list[TrialRecord]:
        """The trials by number."""
        return self.state.trials

    @property
    def budget(self) -> BudgetRule:
        """The rule that says which trials may train on."""
        return self._decider.budget

    @property
    def shared(self) -> ShareMeasured | None:
        """How much of a GPU a trial was measured to take; None where trials share none."""
        return self.state.shared

    @property
    def has_baselines(self) -> bool:
        """Whether the baselines are recorded."""
        return bool(self.state.baselines)

    @property
    def waits_for(self) -> str:
        """What the sweep is waiting for; empty while it goes on."""
        return self.notice or self.state.waits_for_room or self._database.notice

    @property
    def spent(self) -> str:
        """Which limit of the budget is spent; empty while none is."""
        return self.budget.spent

    @property
    def short(self) -> str:
        """Why the driver runs no trial though some are left; empty where none is left."""
        return f"{self.budget.limit} is spent, but for less than a report" if self.left else ""

    @property
    def best(self) -> TrialRecord | None:
        """The best trial so far, ranked as the finished sweep will be."""
        objective = self.spec.objective
        if objective.select == "best":
            return self.trials[self.state.leading[0]] if self.state.leading else None
        judged = [
            trial
            for trial in list(self.trials)
            if trial.value is not None and trial.state != TrialState.FAILED
        ]
        return min(judged, key=lambda trial: trial.place(objective), default=None)

    def view(self) -> SweepView:
        """Read the sweep as everybody sees it; from any thread."""
        return read_sweep(self._database, self.name)

    def give_up_waiting(self) -> None:
        """Let an event that cannot be committed raise, instead of waiting for the database."""
        self._database.give_up.set()

    def close(self, reason: str) -> None:
        """Record why the driver stops, and give the lease back."""
        self._commit(DriverClosed(self._clock(), reason))
        self.lease.release()

    # -- inside ----------------------------------------------------------------------------

    def _read(self, start: SweepStart) -> SweepState:
        """Return where the committed events end, if that can be continued with `start`."""
        with self._database.reading() as connection:
            row = journal.find_sweep(connection, self.name)
            if row is None:
                raise BadInputError(
                    f"sweep {self.name}: was deleted from the study while it was opened; give the "
                    "command again to start it anew"
                )
            state = journal.fold_sweep(connection, row)
        if state.semantics > SEMANTICS:
            raise BadInputError(
                f"sweep {self.name}: was begun by a newer posetune, with rules "
                f"{state.semantics}; this one knows them up to {SEMANTICS}. Continue it with that "
                "posetune, or give another --name."
            )
        check_unchanged(dict(row), state.spec.budget.model_dump(), start)
        return state

    def _current(self, number: int, attempt: int) -> TrialRecord:
        trial = self.trials[number]
        if attempt != trial.attempt or trial.state is not None:
            raise StaleAttemptError(
                f"trial {number}: attempt {attempt} is over or replaced, so its report is refused"
            )
        return trial

    def _commit(self, event: Event) -> None:
        """Append an event in one transaction, under the lease; then apply it."""
        seq = self.state.seq + 1

        def append(connection: Connection) -> None:
            self.lease.check(connection)
            journal.append_event(connection, self.id, seq, event)

        try:
            self._database.write(append)
        except IntegrityError:
            with self._database.reading() as connection:
                if not journal.has_event(connection, self.id, seq, event):
                    raise
        self._note_released(event)
        self.state.apply(event)

    def _note_released(self, event: Event) -> None:
        """Remember the checkpoints that an event lets go, for whoever deletes them."""
        if not isinstance(event, Reported | EpochRepeated | HandedOver | TrialEnded):
            return
        saved = list(self.trials[event.trial].checkpoints)
        if not isinstance(event, TrialEnded) and event.checkpoint is not None:
            saved.append(event.checkpoint)
        gone = [checkpoint for checkpoint in saved if checkpoint.folder in event.released]
        if isinstance(event, Reported):
            gone += [c for number in event.displaced for c in self.trials[number].checkpoints]
        if gone:
            self._released.setdefault(event.trial, []).extend(gone)


def _by_stage(trials: Iterable[TrialRecord]) -> dict[str, tuple[str, ...]]:
    """Return the different keys of each stage, the first trial's first."""
    found: dict[str, dict[str, None]] = {}
    for trial in trials:
        for stage, key in trial.stages.items():
            found.setdefault(stage, {})[key] = None
    return {stage: tuple(of_stage) for stage, of_stage in found.items()}
