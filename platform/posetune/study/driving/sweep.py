"""Runs a sweep for its driver: asks, reports, decisions and reconciliation, without Ray.

`SweepRun` commits one event in one transaction, and only then applies it to its `SweepState`; the
caller acts on what is returned. What an event says is decided by `decisions.decider.Decider`, what
it means by `state.SweepState.apply`. So a driver may be killed between any two lines: the next
one, started by the same command, folds the committed events and stands where the last commit left
it.

The module is long because it is the one door to a sweep, with a method for each thing that its
searcher, its scheduler, people and the cluster tell or ask; what a method decides lies elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, OperationalError

from posetune.spec.sweep import SweepSpec
from posetune.study import act_events
from posetune.study.acts import requests
from posetune.study.acts.deciding import ActRefusedError, event_of
from posetune.study.decisions.budget_rule import BudgetRule
from posetune.study.decisions.decider import Decider
from posetune.study.driving.best_trial import best_trial
from posetune.study.driving.clock import life_clock
from posetune.study.driving.continuing import read_continued
from posetune.study.driving.released import ReleasedCheckpoints
from posetune.study.driving.sweep_start import SweepStart, create_once
from posetune.study.events import (
    BaselinesMeasured,
    DriverClosed,
    DriverOpened,
    EnergyMeasured,
    Event,
    MemoryPeaked,
    Reported,
    RoomAwaited,
    ShareMeasured,
    StageUsed,
)
from posetune.study.faults import Fault
from posetune.study.old.upgrade import upgrade_before_driving
from posetune.study.reading import read_sweep
from posetune.study.records import Attempt, CheckpointRecord
from posetune.study.search.contracts import NamedSampler, Sampler
from posetune.study.search.rungs import Decision, rung_epochs
from posetune.study.search.sampler import search_memory
from posetune.study.tables import journal
from posetune.study.tables.database import Database
from posetune.study.tables.lease import Lease
from posetune.study.trials import TrialRecord
from posetune.study.view import SweepView

__all__ = ["Attempt", "StaleAttemptError", "SweepRun", "SweepStart"]


class StaleAttemptError(RuntimeError):
    """A report came from an attempt that has been replaced; it is not counted."""


class SweepRun:
    """A sweep under way; one driver at a time."""

    def __init__(
        self,
        database: Database,
        start: SweepStart,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Start the sweep, or continue it where its events end.

        Args:
            database: the study; one of the version before is upgraded, where it is SQLite.
            start: the sweep.
            clock: when events happen, in seconds since the epoch (default: the machine's time at
                the start, and what has passed since, however its clock is set meanwhile).

        Raises:
            BadInputError: the sweep exists with another file or store, or has a live driver, or
                was begun by a newer posetune.
        """
        self.name = start.name
        self.notice = ""
        """What trials wait for, but for a place on the cluster; for whoever watches."""
        self.cluster_rules = start.spec.cluster
        """How it shares its cluster with other sweeps, as its file said when it was opened."""
        clock = clock or life_clock()
        self.database, self._clock = database, clock
        self._defaults = dict(start.defaults)
        upgrade_before_driving(database)
        with database.reading() as connection:
            row = journal.find_sweep(connection, start.name)
        self.id = create_once(database, start, clock()) if row is None else int(row["id"])
        self.lease = Lease(database, self.id, self.name)
        try:
            self.state = read_continued(database, start, clock)
        except BaseException:
            self.lease.release()
            raise
        self.stage_keys = _by_stage(self.state.trials)
        """Keys of the stage products that trials used before this driver, by stage."""
        self._handed_out: set[int] = set()
        """Open trials that the caller was given, and has not begun an attempt at."""
        self._released = ReleasedCheckpoints()
        budget, machine = start.spec.budget.model_dump(), start.spec.machine
        opened = DriverOpened(
            clock(),
            budget,
            start.commit,
            by=start.by,
            machine=machine,
            finalists=start.finalists,
        )
        self._commit(opened)
        self._decider = Decider(self.state, clock)
        self._memory = self._sampler()
        self._end_decided()
        for trial in self.trials:
            self._give_up(trial.number)
        self.take_up_requests()

    # -- what the searcher asks ------------------------------------------------------------

    def next_trial(self) -> TrialRecord | None:
        """Return the next trial to run: open ones first, then a new one; None when none is left.

        The budget may leave room for none now, and for some when others have ended. A trial fails
        here whose parent has lost the checkpoint that it was to go on from.
        """
        while (trial := self._next_trial()) is not None:
            lost = self._decider.lost_start(trial)
            if not lost:
                return trial
            self._handed_out.discard(trial.number)
            self.fail(trial.number, lost)
        return None

    def _next_trial(self) -> TrialRecord | None:
        trial = self._decider.open_trial(self._handed_out)
        if trial is None:
            trial = self._resumed()
        if trial is not None:
            self._handed_out.add(trial.number)
            return trial
        if not self._decider.may_ask(self._handed_out):
            return None
        number = len(self.trials)
        repeated = number % self.spec.sampler.repeats
        if number and not repeated and self.state.queue:
            # Trial 0 has the defaults, which others are compared with.
            self._commit(self._decider.ask_enqueued())
            return self.trials[number]
        if repeated:
            self._commit(self._decider.ask_again(self.trials[number - repeated]))
            return self.trials[number]
        params = self._memory.ask(number) if number else self._defaults
        self._commit(self._decider.ask(params))
        return self.trials[number]

    def _sampler(self) -> Sampler:
        """Return what proposes the parameters of new trials."""
        if self._decider.curves is not None:
            return self._decider.curves
        if ":" in self.spec.sampler.name:
            return NamedSampler(self.spec, self.trials)
        return search_memory(self.state)

    def _resumed(self) -> TrialRecord | None:
        """Return the paused trial that goes on now, if one does; cut those that cannot win."""
        choice = self._decider.pruner.choose(self._handed_out)
        if choice is None:
            return None
        for number, why in choice.hopeless.items():
            self._commit(self._decider.cut(number, why))
        return None if choice.resumed is None else self.trials[choice.resumed]

    @property
    def left(self) -> int:
        """Number of trials that are still to be started or continued."""
        waiting = [n for n in self.state.waiting if n not in self._handed_out]
        new = self.state.most_trials - len(self.trials)
        return len(waiting) + len(self.state.paused) + new

    @property
    def attempts_left(self) -> int:
        """How often a trial may still be handed out, at most."""
        pauses = len(rung_epochs(self.spec.pruner)) if self.spec.pruner.name == "thaw" else 0
        under_way = len(self.state.ledger.running) if pauses else 0
        return (self.left + under_way) * (1 + pauses)

    @property
    def may_start(self) -> bool:
        """Whether there is a trial left that the budget has room for."""
        has_open = self._decider.open_trial(self._handed_out) is not None
        return (
            has_open
            or self._decider.may_ask(self._handed_out)
            or self._decider.pruner.may_resume(self._handed_out)
        )

    def begin_attempt(self, number: int) -> Attempt:
        """Begin the next attempt of a trial; reports of older ones are refused from now on."""
        self._commit(self._decider.begin_attempt(number))
        self._handed_out.discard(number)
        trial = self.trials[number]
        parents = [] if trial.parent is None else self.trials[trial.parent].checkpoints
        # The parent may have trained on since.
        whole = (s for s in reversed(parents) if s.is_whole and s.epoch == trial.parent_epoch)
        return Attempt(
            trial=number,
            number=trial.attempt,
            crashes=trial.crashes,
            seed=trial.seed,
            params=trial.params,
            checkpoints=(*reversed(trial.checkpoints), *whole),
            parent=trial.parent if trial.parent_epoch else None,
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
        """Whether a trial trains on after a report.

        Otherwise it has ended, because a person wanted it to stop, or the budget has set it aside.
        """
        if self._decider.is_to_stop(number):
            self.finish(number)
            return False
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

    def hand_over(
        self,
        number: int,
        attempt: int,
        *,
        checkpoint: CheckpointRecord,
        reached: int = 0,
        is_asked: bool = True,
    ) -> bool:
        """Commit the checkpoint of an attempt that was told to stop within an epoch.

        Args:
            number: the trial.
            attempt: the attempt.
            checkpoint: what it saved.
            reached: how far the epoch was, in the trainable's own count of its steps.
            is_asked: whether the driver asked for it; a signal did otherwise.

        Returns:
            Whether the trial is tried again; one that comes no further, however often, has failed.

        Raises:
            StaleAttemptError: the attempt has been replaced.
        """
        self._current(number, attempt)
        event = self._decider.hand_over(number, checkpoint, reached=reached, is_asked=is_asked)
        self._commit(event)
        return not (event.is_crash and self._give_up(number))

    def attempt_failed(self, number: int, attempt: int, fault: Fault) -> bool:
        """Commit that an attempt ended with an error or its worker, and what follows.

        Of one death there may be several answers: what comes after the first changes nothing.

        Returns:
            Whether the trial is tried again; otherwise it has failed.

        Raises:
            StaleAttemptError: the attempt has been replaced.
        """
        trial = self._current(number, attempt)
        if trial.is_attempt_over:
            return True
        self._commit(self._decider.fault(number, fault))
        return not self._give_up(number)

    def excuse(self, number: int, attempt: int, why: str) -> None:
        """Record that an attempt ended by no fault of its trial: it does not count as a crash."""
        self._commit(self._decider.excuse(number, attempt, why))

    def finish(self, number: int) -> None:
        """Commit the end that the last report decided, or a person: STOPPED."""
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
        return self._released.take(number)

    # -- what people want ------------------------------------------------------------------

    def take_up_requests(self) -> None:
        """Let the requests that wait become events, in their order, or refuse them.

        Call it where a trial may be told to stop; while a sweep is being held, call it only once no
        trial is at work any more.
        """
        try:
            with self.database.reading() as connection:
                pending = requests.read_pending(connection, self.id)
        except OperationalError:
            return  # the database is away; whoever commits next waits for it
        for request in pending:
            try:
                event = event_of(request.act, by=request.by, at=self._clock(), state=self.state)
            except ActRefusedError as error:
                why = str(error)
                self.database.write(partial(requests.refuse, token=request.token, why=why))
                continue
            self._commit(event, request=request.token)
            self._follow(event)
            if isinstance(event, act_events.SweepHeld) and self.state.ledger.running:
                return  # the rest comes once no trial is at work any more

    def _follow(self, event: Event) -> None:
        """Do what follows from an act at once."""
        match event:
            case act_events.StopAsked():
                self._end_decided()
            case act_events.SweepReleased():
                self._handed_out.clear()
                self._end_decided()
            case act_events.SweepEdited():
                self._decider = Decider(self.state, self._clock)
                self._memory = self._sampler()
            case act_events.TrialRetried():
                self._memory = self._sampler()

    def spec_of(self, number: int) -> SweepSpec:
        """Return the sweep file as a trial trains by it: an extended one has its own last epoch."""
        extended_to = self.trials[number].extended_to
        return self.spec if extended_to is None else self.spec.up_to(extended_to)

    @property
    def releasing(self) -> list[int]:
        """The trials that have checkpoints which nothing needs any more."""
        return self._released.trials

    def check_lease(self) -> None:
        """Make sure that no other driver has taken the sweep over.

        Raises:
            LeaseLostError: one has.
        """
        self.database.write(self.lease.check)

    def _end_decided(self) -> None:
        """End the trials that wait for no attempt, since their end is decided."""
        for number in self._decider.missing_ends():
            if number not in self._handed_out:
                self.finish(number)

    @property
    def held(self) -> str:
        """Why no trial runs though there are some left: who holds the sweep; empty if nobody."""
        who = self.state.held_by
        return f"held by {who} (posetune release {self.name})" if who else ""

    # -- what the cluster says -------------------------------------------------------------

    def share(self, gpu: float, **facts: int) -> None:
        """Record the part of a GPU that each trial takes from now on, and what was measured."""
        self._commit(ShareMeasured(self._clock(), gpu, **facts))

    def peaked(self, number: int, peak_bytes: int) -> None:
        """Record that a trial has taken more of its GPU's memory than was measured before."""
        self._commit(MemoryPeaked(self._clock(), number, peak_bytes))

    def energy_used(self, number: int, attempt: int, joules: float) -> None:
        """Record what an attempt has taken of its GPUs' energy since the last time.

        Raises:
            StaleAttemptError: the attempt has been replaced.
        """
        self._current(number, attempt)
        self._commit(EnergyMeasured(self._clock(), number, attempt, joules))

    def wait_for_room(self, what: str) -> None:
        """Record what a trial without a place waits for; empty when none waits any more."""
        self._commit(RoomAwaited(self._clock(), what))

    # -- what other sweeps want of the same cluster ----------------------------------------

    @property
    def under_way(self) -> int:
        """How many trials were handed out and have neither ended nor been set aside."""
        return len(self.state.ledger.running | self._handed_out)

    @property
    def placed(self) -> int:
        """How many trials hold a place and have begun to train."""
        trials = self.trials
        return sum(trials[n].holding.since is not None for n in self.state.ledger.running)

    @property
    def wants(self) -> int:
        """How many trials would be at work if there were room for all."""
        if self.held or self.spent or self.broken or not self.may_start:
            return self.under_way
        return self.under_way + max(1, self.left)

    def give_back(self, number: int, why: str) -> None:
        """Set a trial aside because its slot, or the place it waits for, goes to another sweep."""
        self._commit(self._decider.give_back(number, why))

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
        return self.held or self.notice or self.state.waits_for_room or self.database.notice

    @property
    def spent(self) -> str:
        """Which limit of the budget is spent; empty while none is."""
        return self.budget.spent

    @property
    def broken(self) -> str:
        """Why the sweep has ended itself: its trials failed alike. Empty while it has not."""
        return self.state.broken

    @property
    def broken_trace(self) -> str:
        """The traceback of the error for which the sweep has ended itself; empty without one."""
        fault = self.trials[self.state.failures[-1]].fault if self.broken else None
        return fault.trace if fault is not None else ""

    @property
    def short(self) -> str:
        """Why the driver runs no trial though some are left; empty where none is left."""
        return f"{self.budget.limit} is spent, but for less than a report" if self.left else ""

    @property
    def finished(self) -> str:
        """Why a sweep ends of which nothing is left."""
        return f"finished: {self.state.used_up}" if self.state.used_up else "finished"

    @property
    def best(self) -> TrialRecord | None:
        """The best trial so far, ranked as the finished sweep will be."""
        return best_trial(self.state)

    def view(self) -> SweepView:
        """Read the sweep as everybody sees it; from any thread."""
        return read_sweep(self.database, self.name)

    def give_up_waiting(self) -> None:
        """Let an event that cannot be committed raise, instead of waiting for the database."""
        self.database.give_up.set()

    def close(self, reason: str) -> None:
        """Record why the driver stops, and give the lease back."""
        self._commit(DriverClosed(self._clock(), reason))
        self.lease.release()

    # -- inside ----------------------------------------------------------------------------

    def _give_up(self, number: int) -> bool:
        """Commit the end of a trial that its last fault means, and return whether it has one."""
        end = self._decider.give_up(number)
        if end is not None:
            self._commit(end)
        return end is not None

    def _current(self, number: int, attempt: int) -> TrialRecord:
        trial = self.trials[number]
        if attempt != trial.attempt or trial.state is not None:
            raise StaleAttemptError(
                f"trial {number}: attempt {attempt} is over or replaced, so its report is refused"
            )
        return trial

    def _commit(self, event: Event, *, request: str | None = None) -> None:
        """Append an event in one transaction, under the lease; then apply it.

        Args:
            event: what happened.
            request: the request that becomes this event, where it is one.
        """
        seq = self.state.seq + 1

        def append(connection: Connection) -> None:
            self.lease.check(connection)
            journal.append_event(connection, self.id, seq, event)
            if request is not None:
                requests.mark_taken_up(connection, request, seq)

        try:
            self.database.write(append)
        except IntegrityError:
            with self.database.reading() as connection:
                if not journal.has_event(connection, self.id, seq, event):
                    raise
        self._released.note(event, self.trials)
        self.state.apply(event)


def _by_stage(trials: Iterable[TrialRecord]) -> dict[str, tuple[str, ...]]:
    """Return the different keys of each stage, the first trial's first."""
    found: dict[str, dict[str, None]] = {}
    for trial in trials:
        for stage, key in trial.stages.items():
            found.setdefault(stage, {})[key] = None
    return {stage: tuple(of_stage) for stage, of_stage in found.items()}
