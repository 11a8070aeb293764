"""Decides what a driver does next with a sweep, as events that have not happened yet.

`Decider` changes nothing: it looks at a `SweepState` and returns the event that says what is
decided. A driver commits that event and applies it; the forecast's simulation applies it only. So
both decide alike.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from posetune.spec.parameters import Scalar
from posetune.study.budget_rule import BudgetRule
from posetune.study.events import (
    AttemptBegun,
    AttemptExcused,
    AttemptFailed,
    AttemptPlaced,
    EpochRepeated,
    HandedOver,
    Reported,
    SetAside,
    TrialAsked,
    TrialEnded,
)
from posetune.study.faults import Fault, FaultKind
from posetune.study.records import CheckpointRecord, EpochValue
from posetune.study.search.contracts import NamedPruner
from posetune.study.search.rungs import Decision, RungVerdict
from posetune.study.search.seeding import seed_for
from posetune.study.search.start_from import prior_trials
from posetune.study.state import SweepState
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord, split_needed

if TYPE_CHECKING:
    from posetune.study.search.curve_search import CurveSearch
    from posetune.study.search.thaw import Selection, Thaw

__all__ = ["MAX_CRASHES", "Decider"]

MAX_CRASHES = 4
"""Number of crashes with which a trial has FAILED."""

FREE_STALLS = 2
"""How often in a row a trial may be told to stop and have come no further, before that counts."""

_UNFINISHED = (TrialState.PRUNED, TrialState.FAILED)
"""How a trial ends whose checkpoints are kept only while it is among the best."""


class Decider:
    """Decides for one sweep, as its state stands at each question."""

    def __init__(self, state: SweepState, clock: Callable[[], float]) -> None:
        """Decide for a sweep.

        Args:
            state: the sweep; its events are applied by the caller.
            clock: when events happen, in seconds since the epoch.
        """
        self._state, self._clock = state, clock
        self.budget = BudgetRule(state, clock)
        self.curves = _curves(state)
        """The model of the sweep's curves; None where its sampler has none."""
        self._thaw = _thaw(state, self.curves)
        is_named = ":" in state.spec.pruner.name
        self._named = NamedPruner(state.spec, state.trials) if is_named else None

    # -- which trial runs next ---------------------------------------------------------------------

    def open_trial(self, handed_out: Collection[int] = ()) -> TrialRecord | None:
        """Return the open trial to take up next; None where none may train.

        Args:
            handed_out: those that are taken up already, though no attempt at them has begun.
        """
        if self._state.broken:
            return None
        for number in self._state.waiting:
            trial = self._state.trials[number]
            if number not in handed_out and self.budget.may_train(trial):
                return trial
        return None

    def may_ask(self, handed_out: Collection[int] = ()) -> bool:
        """Whether a new trial may be asked for: open ones go first."""
        state = self._state
        is_waiting = any(number not in handed_out for number in state.waiting)
        is_room = len(state.trials) < state.most_trials
        return is_room and not (is_waiting or state.broken) and self.budget.may_train(None)

    def ask_enqueued(self) -> TrialAsked:
        """Return the event of the new trial that a person has enqueued first."""
        chosen = self._state.queue[0]
        event = dataclasses.replace(self.ask(chosen.params), by=chosen.by)
        if chosen.parent is None:
            return event
        parent = self._state.trials[chosen.parent]
        whole = [saved.epoch for saved in parent.checkpoints if saved.is_whole]
        return dataclasses.replace(
            event,
            seed=parent.seed,
            parent=parent.number,
            parent_epoch=max(whole, default=0),
            epochs=chosen.epochs,
        )

    def ask_again(self, first: TrialRecord) -> TrialAsked:
        """Return the event of a trial that repeats another one, also where that has a parent.

        It has a seed of its own.
        """
        event = self.ask(first.params)
        if first.parent is None:
            return event
        return dataclasses.replace(
            event,
            parent=first.parent,
            parent_epoch=first.parent_epoch,
            epochs=first.extended_to,
        )

    def ask(self, params: Mapping[str, Scalar]) -> TrialAsked:
        """Return the event of a new trial with the parameters that were drawn for it."""
        number, sampler = len(self._state.trials), self._state.spec.sampler
        alike = sampler.name == "one_by_one"  # so that only the field differs
        seed = seed_for(sampler.seed, 0 if alike else number, "trial")
        return TrialAsked(self._clock(), number, dict(params), seed)

    # -- an attempt --------------------------------------------------------------------------------

    def begin_attempt(self, number: int) -> AttemptBegun:
        """Return the event of the next attempt of a trial.

        A second attempt under one driver means that the first one's worker died, unless it handed
        its work over, was set aside or was excused. Where it is known how the first one failed,
        that has been counted.
        """
        trial = self._state.trials[number]
        has_ended_well = trial.has_handed_over or trial.is_set_aside or trial.is_paused
        died = number in self._state.begun and not has_ended_well
        return AttemptBegun(
            at=self._clock(),
            trial=number,
            attempt=trial.attempt + 1,
            from_epoch=trial.epoch,
            follows_death=died,
            is_crash=died and not (trial.is_excused or trial.has_failed_attempt),
        )

    def place(self, number: int, facts: Mapping[str, Any]) -> AttemptPlaced:
        """Return the event that the newest attempt of a trial begins to train.

        Args:
            number: the trial.
            facts: of the attempt, as `trial.run.Started.placement` has them.
        """
        trial, told = self._state.trials[number], dict(facts)
        begun_at = told.pop("checkpoint", None)
        folders = _folders(trial.checkpoints)
        passed_over = () if begun_at is None else folders
        if begun_at in folders:
            passed_over = folders[folders.index(begun_at) + 1 :]
        return AttemptPlaced(self._clock(), number, trial.attempt, told, passed_over)

    def excuse(self, number: int, attempt: int, why: str) -> AttemptExcused:
        """Return the event that an attempt, perhaps an older one, was not ended by its trial."""
        is_counted = attempt == self._state.trials[number].blamed
        return AttemptExcused(self._clock(), number, attempt, why, takes_back=is_counted)

    def report(
        self,
        number: int,
        *,
        epoch: int,
        metrics: Mapping[str, float],
        seconds: float,
        checkpoint: CheckpointRecord | None,
    ) -> Reported | EpochRepeated:
        """Return the event of an epoch of a trial's newest attempt, with what the rungs decide."""
        trial, at = self._state.trials[number], self._clock()
        if epoch in trial.values:
            released = self._released(trial, checkpoint, trial.best)
            return EpochRepeated(at, number, trial.attempt, epoch, checkpoint, released)
        value = metrics.get(self._state.spec.objective.metric, math.nan)
        objective = float(value) if math.isfinite(value) else None
        best = self._best_with(trial, epoch, objective)
        verdict = self._verdict(trial, epoch, objective)
        return Reported(
            at=at,
            trial=number,
            attempt=trial.attempt,
            epoch=epoch,
            value=objective,
            decision=verdict.decision,
            seconds=seconds,
            why=verdict.why,
            is_audited=verdict.is_audited,
            checkpoint=checkpoint,
            released=self._released(trial, checkpoint, best),
            displaced=self._displaced(trial, best),
            metrics={k: (v if math.isfinite(v) else None) for k, v in metrics.items()},
        )

    def _verdict(self, trial: TrialRecord, epoch: int, value: float | None) -> RungVerdict:
        """Return what the rungs say of a report, unless a person has chosen otherwise.

        A pinned trial runs on where it would have been cut, and from there on it is compared with
        nobody; an extended one ends at the epoch that was chosen, and is compared with nobody.
        """
        if trial.extended_to is not None:
            is_last = epoch >= trial.extended_to
            return RungVerdict(Decision.COMPLETE if is_last else Decision.CONTINUE)
        verdict = self._judge(trial.number, epoch, value)
        if verdict.decision in (Decision.PRUNE, Decision.PAUSE) and trial.is_pinned:
            return RungVerdict(Decision.CONTINUE, is_audited=True)
        is_stopped = trial.stop_after is not None and epoch >= trial.stop_after
        if verdict.decision == Decision.PAUSE and is_stopped:
            return RungVerdict(Decision.CONTINUE)  # it ends where a person wants it to
        return verdict

    def hand_over(
        self, number: int, checkpoint: CheckpointRecord, *, reached: int = 0, is_asked: bool = True
    ) -> HandedOver:
        """Return the event that a trial's newest attempt saved within an epoch and stops.

        Args:
            number: the trial.
            checkpoint: what it saved.
            reached: how far the epoch was, in the trainable's own count of its steps.
            is_asked: whether the driver asked for it; otherwise the worker was told by a signal,
                and one that comes again and again must not keep a trial for ever.
        """
        trial = self._state.trials[number]
        is_stalled = not is_asked and (checkpoint.epoch, reached) <= trial.reached
        return HandedOver(
            at=self._clock(),
            trial=number,
            attempt=trial.attempt,
            checkpoint=checkpoint,
            released=self._released(trial, checkpoint, trial.best),
            reached=reached,
            is_stalled=is_stalled,
            is_crash=is_stalled and trial.stalls >= FREE_STALLS,
        )

    def fault(self, number: int, fault: Fault) -> AttemptFailed:
        """Return the event that a trial's newest attempt ended with an error or its worker."""
        trial = self._state.trials[number]
        is_crash = fault.kind in (FaultKind.CRASH, FaultKind.STUCK)
        if fault.kind == FaultKind.TERMINATED:
            is_crash = trial.stalls >= FREE_STALLS
        return AttemptFailed(self._clock(), number, trial.attempt, fault, is_crash)

    def set_aside(self, number: int) -> SetAside | None:
        """Return the event that the budget ends a trial's attempt; None where it may train on.

        The trial stays open then, and goes on when there is room for it: under this driver, after
        others have ended, or under another with a larger budget.
        """
        trial = self._state.trials[number]
        if self.budget.may_train(trial):
            return None
        return SetAside(self._clock(), number, trial.attempt)

    def is_to_stop(self, number: int) -> bool:
        """Whether a trial has come to the epoch after which a person wants it to end."""
        trial = self._state.trials[number]
        is_open = trial.state is None and not trial.decision.is_end
        return is_open and trial.stop_after is not None and trial.epoch >= trial.stop_after

    # -- the end of a trial ------------------------------------------------------------------------

    def finish(self, number: int, *, at_rest: bool = False) -> TrialEnded:
        """Return the end that a trial's last report decided, or a person: STOPPED.

        Args:
            number: the trial.
            at_rest: whether no driver is at work on the sweep.
        """
        trial, spec = self._state.trials[number], self._state.spec
        if self.is_to_stop(number):
            reason = f"stopped by {trial.stopped_by} after epoch {trial.epoch}"
            return self._end(trial, TrialState.STOPPED, reason, at_rest=at_rest)
        if trial.decision == Decision.PRUNE:
            why = f"cut at epoch {trial.epoch}: {trial.why}" if trial.why else ""
            why = why or f"cut by ASHA at epoch {trial.epoch}"
            if trial.value is None:
                why += f", where {spec.objective.metric} was not a number"
            return self._end(trial, TrialState.PRUNED, why)
        if trial.value is None:
            reason = f"{spec.objective.metric} was not a number"
            return self._end(trial, TrialState.FAILED, reason)
        if trial.extended_to is not None:
            is_whole = trial.epoch >= spec.pruner.max_epochs
            state = TrialState.COMPLETE if is_whole else TrialState.PRUNED
            begun = "was extended" if trial.parent is None else f"went on from trial {trial.parent}"
            return self._end(trial, state, f"{begun} to {trial.epoch} epochs")
        cut = self._state.rungs.audited.get(number)
        audit = f"; ASHA would have cut it at epoch {cut}" if cut else ""
        return self._end(trial, TrialState.COMPLETE, f"ran its {trial.epoch} epochs{audit}")

    def fail(self, number: int, reason: str) -> TrialEnded:
        """Return the end of a trial that failed for good."""
        return self._end(self._state.trials[number], TrialState.FAILED, reason)

    def give_up(self, number: int) -> TrialEnded | None:
        """Return the end that the fault of a trial's newest attempt means; None for another try."""
        trial = self._state.trials[number]
        fault = trial.fault
        ended_badly = trial.has_failed_attempt or trial.has_handed_over
        if fault is None or trial.state is not None or not ended_badly:
            return None
        if fault.kind in (FaultKind.TOLD, FaultKind.CODE):
            reason = str(fault) if fault.kind == FaultKind.CODE else fault.line
        elif fault.kind == FaultKind.MEMORY and trial.full_gpus > 1:
            reason = fault.line
        elif trial.crashes >= MAX_CRASHES:
            reason = f"its worker died {trial.crashes} times, at last of: {fault.line}"
        else:
            return None
        end = self._end(trial, TrialState.FAILED, reason)
        return dataclasses.replace(end, stops_sweep=self._breaks(trial, fault))

    def _breaks(self, trial: TrialRecord, fault: Fault) -> str:
        """Return why the sweep ends with the failure of a trial; empty where it goes on.

        It ends when the first trials to fail have failed alike and none has come past that epoch:
        then every further one would fail as well.
        """
        state, limit = self._state, self._state.spec.budget.stop_after_failures
        failed = [*(state.trials[number] for number in state.failures), trial]
        if state.broken or len(failed) != limit:
            return ""
        epoch = 1 + max(one.epoch for one in failed)
        alike = all(one.fault is not None and one.fault.is_like(fault) for one in failed)
        if not alike or any(one.epoch >= epoch for one in state.trials):
            return ""
        return (
            f"the first {limit} trials to fail have failed alike before the end of epoch {epoch}, "
            f"and none has come further: {fault}"
        )

    def missing_ends(self) -> list[int]:
        """Return the open trials whose end was decided, and not recorded."""
        open_trials = (*self._state.waiting, *self._state.paused)
        return [number for number in open_trials if self._is_decided(number)]

    def _is_decided(self, number: int) -> bool:
        return self._state.trials[number].decision.is_end or self.is_to_stop(number)

    # -- trials that are paused --------------------------------------------------------------------

    def may_resume(self, handed_out: Collection[int] = ()) -> bool:
        """Whether a paused trial may train on, or is to be cut."""
        return self._thaw is not None and bool(self._resumable(handed_out))

    def choose(self, handed_out: Collection[int] = ()) -> Selection | None:
        """Return whether a paused trial goes on or a new one begins, and which are cut.

        None where no trial is ever paused.

        Args:
            handed_out: the trials that are taken up already, though no attempt has begun.
        """
        if self._thaw is None:
            return None
        at_work = sorted({*self._state.ledger.running, *handed_out})
        paused = self._resumable(handed_out)
        return self._thaw.choose(paused, at_work, self._next_number, is_final=self._is_final)

    def cut(self, number: int, why: str) -> TrialEnded:
        """Return the end of a paused trial that is not resumed."""
        trial = self._state.trials[number]
        reason = f"paused after epoch {trial.epoch} and cut: {why}"
        return self._end(trial, TrialState.PRUNED, reason)

    def _judge(self, number: int, epoch: int, value: float | None) -> RungVerdict:
        """Return what the pruner says of a report."""
        if self._named is not None:
            return self._named.decide(number, epoch, value)
        if self._thaw is None:
            return self._state.rungs.decide(number, epoch, value)
        paused = [n for n in self._state.paused if n != number]
        at_work = sorted(self._state.ledger.running - {number, *paused})
        return self._thaw.decide(
            number,
            epoch,
            value,
            paused=paused,
            at_work=at_work,
            next_number=self._next_number,
            is_final=self._is_final,
        )

    @property
    def _is_final(self) -> bool:
        """Whether the sweep has all its trials."""
        return len(self._state.trials) >= self._state.most_trials

    @property
    def _next_number(self) -> int | None:
        """The number of the next new trial; None where the budget has no room for one."""
        may_begin = not self._is_final and self.budget.may_train(None)
        return len(self._state.trials) if may_begin else None

    def _resumable(self, handed_out: Collection[int]) -> list[int]:
        trials, may_train = self._state.trials, self.budget.may_train
        paused = (number for number in self._state.paused if number not in handed_out)
        return [number for number in paused if may_train(trials[number])]

    # -- which checkpoints are let go --------------------------------------------------------------

    def _best_with(self, trial: TrialRecord, epoch: int, value: float | None) -> EpochValue | None:
        """Return a trial's best epoch once it has reported another value."""
        best, better = trial.best, self._state.spec.objective.better
        if value is None or (best is not None and not better(value, best.value)):
            return best
        return EpochValue(epoch, value)

    def _released(
        self,
        trial: TrialRecord,
        checkpoint: CheckpointRecord | None,
        best: EpochValue | None,
    ) -> tuple[str, ...]:
        """Return the folders that an open trial does not need once it has another checkpoint."""
        if checkpoint is None:
            return ()
        every = [*trial.checkpoints, checkpoint]
        return _folders(split_needed(every, None, best=self._kept_epoch(best))[1])

    def _displaced(self, trial: TrialRecord, best: EpochValue | None) -> tuple[int, ...]:
        """Return the ended trials that are not among the best once a trial has a new best."""
        state = self._state
        if best is None or best == trial.best or not state.keeps_best:
            return ()
        staying = state.leading_with(trial.number, best.value)
        left = [state.trials[number] for number in state.leading if number not in staying]
        return tuple(one.number for one in left if one.state in _UNFINISHED and one.checkpoints)

    def _kept_epoch(self, best: EpochValue | None) -> int | None:
        """Return the epoch whose checkpoint is kept because it is a trial's best."""
        return best.epoch if best is not None and self._state.keeps_best else None

    def _end(
        self, trial: TrialRecord, state: TrialState, reason: str, *, at_rest: bool = False
    ) -> TrialEnded:
        whole = [saved for saved in trial.checkpoints if saved.folder not in trial.passed_over]
        needed, _ = split_needed(
            whole,
            state,
            best=self._kept_epoch(trial.best),
            is_among_best=self._state.keeps_best and self._state.is_among_best(trial.number),
        )
        gone = [saved for saved in trial.checkpoints if saved not in needed]
        return TrialEnded(
            at=self._clock(),
            trial=trial.number,
            state=state,
            epoch=trial.epoch,
            value=trial.value,
            reason=reason,
            released=_folders(gone),
            at_rest=at_rest,
        )


def _curves(state: SweepState) -> CurveSearch | None:
    """Return the model of a sweep's curves, where its sampler has one."""
    if state.spec.sampler.name != "gp":
        return None
    from posetune.study.search.curve_search import CurveSearch  # takes SciPy, which takes a second

    prior, audited = prior_trials(state.prior), state.rungs.audited
    return CurveSearch(state.spec, state.trials, state.curve_log, prior, audited)


def _thaw(state: SweepState, curves: CurveSearch | None) -> Thaw | None:
    """Return what pauses a sweep's trials, where its pruner does."""
    if curves is None or state.spec.pruner.name != "thaw":
        return None
    from posetune.study.search.thaw import Thaw

    return Thaw(curves)


def _folders(checkpoints: list[CheckpointRecord]) -> tuple[str, ...]:
    return tuple(checkpoint.folder for checkpoint in checkpoints)
