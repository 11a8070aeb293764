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
from posetune.study.decisions import letting_go
from posetune.study.decisions.budget_rule import BudgetRule
from posetune.study.decisions.patience_rule import PatienceRule
from posetune.study.decisions.pruner_rule import PrunerRule
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
from posetune.study.records import CheckpointRecord
from posetune.study.search.rungs import Decision
from posetune.study.search.seeding import seed_for
from posetune.study.search.start_from import prior_trials
from posetune.study.state import SweepState
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord

if TYPE_CHECKING:
    from posetune.study.search.curves.search import CurveSearch

__all__ = ["MAX_CRASHES", "Decider"]

MAX_CRASHES = 4
"""Number of crashes with which a trial has FAILED."""

FREE_STALLS = 2
"""How often in a row a trial may be told to stop and have come no further, before that counts."""


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
        self.pruner = PrunerRule(state, self.budget, self.curves)
        self._patience = PatienceRule(state, self.curves)

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
            # An act that an earlier posetune took up does not say it.
            parent_epoch=chosen.parent_epoch or max(whole, default=0),
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

    def lost_start(self, trial: TrialRecord) -> str:
        """Return why a trial cannot begin: what it goes on from is gone; empty where it can."""
        if trial.parent is None or not trial.parent_epoch or trial.checkpoints:
            return ""
        kept = self._state.trials[trial.parent].checkpoints
        if any(saved.is_whole and saved.epoch == trial.parent_epoch for saved in kept):
            return ""
        return (
            f"the checkpoint of trial {trial.parent} after epoch {trial.parent_epoch}, which it "
            "was to go on from, is gone (posetune enqueue begins anew)"
        )

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
        folders = tuple(saved.folder for saved in trial.checkpoints)
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
            released = letting_go.after(self._state, trial, checkpoint, trial.best)
            return EpochRepeated(at, number, trial.attempt, epoch, checkpoint, released)
        value = metrics.get(self._state.spec.objective.metric, math.nan)
        objective = float(value) if math.isfinite(value) else None
        best = letting_go.best_with(self._state, trial, epoch, objective)
        verdict = self.pruner.verdict(trial, epoch, objective)
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
            released=letting_go.after(self._state, trial, checkpoint, best),
            displaced=letting_go.displaced(self._state, trial, best),
            metrics={k: (v if math.isfinite(v) else None) for k, v in metrics.items()},
        )

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
            released=letting_go.after(self._state, trial, checkpoint, trial.best),
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

    def give_back(self, number: int, why: str) -> SetAside:
        """Return the event that a trial's slot, or the place it waits for, goes to another sweep.

        The trial stays open, and goes on first once the sweep has a slot for it again.
        """
        return SetAside(self._clock(), number, self._state.trials[number].attempt, why)

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
            return self._end_with_gain(trial, TrialState.PRUNED, why)
        if trial.value is None:
            reason = f"{spec.objective.metric} was not a number"
            return self._end(trial, TrialState.FAILED, reason)
        if trial.extended_to is not None:
            is_whole = trial.epoch >= spec.pruner.max_epochs
            state = TrialState.COMPLETE if is_whole else TrialState.PRUNED
            begun = "was extended" if trial.parent is None else f"went on from trial {trial.parent}"
            return self._end_with_gain(trial, state, f"{begun} to {trial.epoch} epochs")
        cut = self._state.rungs.audited.get(number)
        audit = f"; ASHA would have cut it at epoch {cut}" if cut else ""
        reason = f"ran its {trial.epoch} epochs{audit}"
        return self._end_with_gain(trial, TrialState.COMPLETE, reason)

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

    def cut(self, number: int, why: str) -> TrialEnded:
        """Return the end of a paused trial that is not resumed."""
        trial = self._state.trials[number]
        reason = f"paused after epoch {trial.epoch} and cut: {why}"
        return self._end(trial, TrialState.PRUNED, reason)

    def _end_with_gain(self, trial: TrialRecord, state: TrialState, reason: str) -> TrialEnded:
        """Return the end of a trial, with what its sweep may still gain."""
        gain = self._patience.gain_at(trial, state)
        return dataclasses.replace(self._end(trial, state, reason), gain=gain)

    def _end(
        self, trial: TrialRecord, state: TrialState, reason: str, *, at_rest: bool = False
    ) -> TrialEnded:
        return TrialEnded(
            at=self._clock(),
            trial=trial.number,
            state=state,
            epoch=trial.epoch,
            value=trial.value,
            reason=reason,
            released=letting_go.at_end(self._state, trial, state),
            at_rest=at_rest,
        )


def _curves(state: SweepState) -> CurveSearch | None:
    """Return the model of a sweep's curves, where its sampler has one."""
    if state.spec.sampler.name != "gp":
        return None
    from posetune.study.search.curves.search import CurveSearch  # takes SciPy, which takes a second

    prior, audited = prior_trials(state.prior), state.rungs.audited
    return CurveSearch(state.spec, state.trials, state.curve_log, prior, audited)
