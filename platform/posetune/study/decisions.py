"""Decides what a driver does next with a sweep, as events that have not happened yet.

`Decider` changes nothing: it looks at a `SweepState` and returns the event that says what is
decided. A driver commits that event and applies it; the forecast's simulation applies it only. So
both decide alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from posetune.spec.parameters import Scalar
from posetune.study.budget_rule import BudgetRule
from posetune.study.events import (
    AttemptBegun,
    AttemptExcused,
    AttemptPlaced,
    EpochRepeated,
    HandedOver,
    Reported,
    SetAside,
    TrialAsked,
    TrialEnded,
)
from posetune.study.records import CheckpointRecord, EpochValue
from posetune.study.search.rungs import Decision
from posetune.study.search.seeding import seed_for
from posetune.study.state import SweepState
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord, split_needed

__all__ = ["Decider"]

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

    # -- which trial runs next ---------------------------------------------------------------------

    def open_trial(self, handed_out: Collection[int] = ()) -> TrialRecord | None:
        """Return the open trial to take up next; None where none may train.

        Args:
            handed_out: those that are taken up already, though no attempt at them has begun.
        """
        for number in self._state.waiting:
            trial = self._state.trials[number]
            if number not in handed_out and self.budget.may_train(trial):
                return trial
        return None

    def may_ask(self, handed_out: Collection[int] = ()) -> bool:
        """Whether a new trial may be asked for: open ones go first."""
        state = self._state
        is_waiting = any(number not in handed_out for number in state.waiting)
        is_room = len(state.trials) < state.spec.budget.trials
        return is_room and not is_waiting and self.budget.may_train(None)

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
        its work over, was set aside or was excused.
        """
        trial = self._state.trials[number]
        has_ended_well = trial.has_handed_over or trial.is_set_aside
        died = number in self._state.begun and not has_ended_well
        return AttemptBegun(
            at=self._clock(),
            trial=number,
            attempt=trial.attempt + 1,
            from_epoch=trial.epoch,
            follows_death=died,
            is_crash=died and not trial.is_excused,
        )

    def place(self, number: int, facts: Mapping[str, Any]) -> AttemptPlaced:
        """Return the event that the newest attempt of a trial begins to train."""
        attempt = self._state.trials[number].attempt
        return AttemptPlaced(self._clock(), number, attempt, dict(facts))

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
        verdict = self._state.rungs.decide(number, epoch, objective)
        return Reported(
            at=at,
            trial=number,
            attempt=trial.attempt,
            epoch=epoch,
            value=objective,
            decision=verdict.decision,
            seconds=seconds,
            is_audited=verdict.is_audited,
            checkpoint=checkpoint,
            released=self._released(trial, checkpoint, best),
            displaced=self._displaced(trial, best),
            metrics={k: (v if math.isfinite(v) else None) for k, v in metrics.items()},
        )

    def hand_over(self, number: int, checkpoint: CheckpointRecord) -> HandedOver:
        """Return the event that a trial's newest attempt saved within an epoch and stops."""
        trial = self._state.trials[number]
        released = self._released(trial, checkpoint, trial.best)
        return HandedOver(self._clock(), number, trial.attempt, checkpoint, released)

    def set_aside(self, number: int) -> SetAside | None:
        """Return the event that the budget ends a trial's attempt; None where it may train on.

        The trial stays open then, and goes on when there is room for it: under this driver, after
        others have ended, or under another with a larger budget.
        """
        trial = self._state.trials[number]
        if self.budget.may_train(trial):
            return None
        return SetAside(self._clock(), number, trial.attempt)

    # -- the end of a trial ------------------------------------------------------------------------

    def finish(self, number: int) -> TrialEnded:
        """Return the end that a trial's last report decided: COMPLETE or PRUNED."""
        trial, spec = self._state.trials[number], self._state.spec
        if trial.decision == Decision.PRUNE:
            return self._end(trial, TrialState.PRUNED, f"cut by ASHA at epoch {trial.epoch}")
        if trial.value is None:
            reason = f"{spec.objective.metric} was not a number"
            return self._end(trial, TrialState.FAILED, reason)
        cut = self._state.rungs.audited.get(number)
        audit = f"; ASHA would have cut it at epoch {cut}" if cut else ""
        return self._end(trial, TrialState.COMPLETE, f"ran its {trial.epoch} epochs{audit}")

    def fail(self, number: int, reason: str) -> TrialEnded:
        """Return the end of a trial that failed for good."""
        return self._end(self._state.trials[number], TrialState.FAILED, reason)

    def missing_ends(self) -> list[int]:
        """Return the open trials whose end was decided by a report, and not recorded."""
        waiting = (self._state.trials[number] for number in self._state.waiting)
        return [trial.number for trial in waiting if trial.decision != Decision.CONTINUE]

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

    def _end(self, trial: TrialRecord, state: TrialState, reason: str) -> TrialEnded:
        _, gone = split_needed(
            trial.checkpoints,
            state,
            best=self._kept_epoch(trial.best),
            is_among_best=self._state.keeps_best and self._state.is_among_best(trial.number),
        )
        return TrialEnded(
            at=self._clock(),
            trial=trial.number,
            state=state,
            epoch=trial.epoch,
            value=trial.value,
            reason=reason,
            released=_folders(gone),
        )


def _folders(checkpoints: list[CheckpointRecord]) -> tuple[str, ...]:
    return tuple(checkpoint.folder for checkpoint in checkpoints)
