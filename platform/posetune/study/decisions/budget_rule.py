"""Decides which trial may train on, so that the budget is kept and the leader runs to its end.

`BudgetRule` follows from the committed events alone, so a resume stands where the last driver
stood. A trial may hold its GPU for one more report if what is spent, the reports that others have
under way, its own, and what the leader needs to run to its last epoch fit into the limit. The
leader itself may go on until the limit is reached. A trial that may not is set aside: it stays
open. As every trial was let go on below the limit, it is exceeded by at most one report of each
running trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from posetune.study.budget import limit_in_words, patience_over, target_reached
from posetune.study.state import SweepState
from posetune.study.trials import TrialRecord

__all__ = ["BudgetRule"]


class BudgetRule:
    """Decides whether a trial may train for another epoch."""

    def __init__(self, state: SweepState, clock: Callable[[], float]) -> None:
        """Decide for a sweep as its state stands at each question.

        Args:
            state: the sweep; it changes with its events.
            clock: seconds since the epoch.
        """
        self._state, self._clock = state, clock

    @property
    def limit_s(self) -> float | None:
        """For how long attempts may hold their resources; None without a limit."""
        spec = self._state.spec
        hours = spec.budget.limit_gpu_hours
        return None if hours is None else hours * 3600 / spec.resources.gpus_or_one

    @property
    def ends_at(self) -> float:
        """When the hours by the clock are over; seconds since the epoch."""
        hours = self._state.spec.budget.wall_hours
        if hours is None:
            return math.inf
        return self._state.opened_at + 3600 * hours - self._state.driven_before_s

    @property
    def limit(self) -> str:
        """The limit of GPU-hours, in words."""
        return f"the budget of {limit_in_words(self._state.spec)}"

    @property
    def spent(self) -> str:
        """Which limit is reached; empty while none is."""
        limit_s = self.limit_s
        if limit_s is not None and self._state.ledger.held_s >= limit_s:
            return f"{self.limit} is spent"
        if not self._state.held_by and self._clock() >= self.ends_at:
            return f"the budget of {self._state.spec.budget.wall_hours:g} hours is spent"
        state = self._state
        reached = target_reached(state.spec, state.bests)
        return reached or patience_over(state.spec, state.gain, state.gains_in_noise)

    def may_train(self, trial: TrialRecord | None) -> bool:
        """Whether an open trial, or a new one (None), may hold its resources for a report more."""
        limit_s = self.limit_s
        if limit_s is None:
            return True
        left_s = limit_s - self._state.ledger.held_s
        leader = self.leader
        if left_s <= 0 or (trial is not None and trial is leader):
            return left_s > 0
        others_s = self._under_way_s(trial, leader)
        own_s = self._report_s(trial) + self._restart_s(trial)
        reserve_s = self._missing_s(leader) + self._margin_s(leader) if leader else 0.0
        return own_s + others_s + reserve_s <= left_s

    @property
    def leader(self) -> TrialRecord | None:
        """The trial that what is left is reserved for, so that it can run to its last epoch.

        It is the first in the ranking of the open trials that can do so, unless a complete trial
        was better on its way. Where none can, the first. Trials that only show what cutting costs
        cannot lead.
        """
        state, ledger = self._state, self._state.ledger
        judged = [
            trial
            for number in ledger.open
            if (trial := state.trials[number]).value is not None
            and number not in state.rungs.audited
        ]
        judged.sort(key=lambda trial: trial.place(state.spec.objective))
        leading = [trial for trial in judged if self._beats_the_complete(trial)]
        left_s = (self.limit_s or math.inf) - ledger.held_s - self._under_way_s()
        for trial in leading:
            own_s = self._report_s(trial) if trial.number in ledger.running else 0.0
            if self._missing_s(trial) - own_s <= left_s:
                return trial
        return next(iter(leading), None)

    def _beats_the_complete(self, trial: TrialRecord) -> bool:
        complete = self._state.ledger.best_complete
        if trial.standing is None:
            return not complete
        epoch, value = trial.standing
        best = complete.get(epoch)
        return best is None or self._state.spec.objective.better(value, best)

    def _under_way_s(self, *but: TrialRecord | None) -> float:
        """Return the seconds that the next reports take, of all running trials but these."""
        trials = self._state.trials
        left_out = {trial.number for trial in but if trial is not None}
        running = self._state.ledger.running - left_out
        return sum(self._report_s(trials[number]) for number in running)

    def _missing_s(self, trial: TrialRecord) -> float:
        """Return what a trial needs to run to its last epoch."""
        missing = self._state.last_epoch(trial) - trial.epoch
        return missing * self._report_s(trial) + self._restart_s(trial)

    def _margin_s(self, trial: TrialRecord) -> float:
        """Return the seconds that a trial may need beyond those of `_missing_s`.

        Two standard deviations of the sum of the missing epochs, whose mean is known from those
        that it has; and at least one report.
        """
        missing, done = self._state.last_epoch(trial) - trial.epoch, max(1, trial.epoch)
        spread = self._state.ledger.spread
        reports = max(1.0, 2 * spread * math.sqrt(missing + missing**2 / done))
        return reports * self._report_s(trial)

    def _report_s(self, trial: TrialRecord | None) -> float:
        """Return how long a trial's next report may take: as its others, or as everybody's."""
        if trial is not None and trial.values:
            return trial.seconds / len(trial.values)
        ledger = self._state.ledger
        return ledger.trained_s / ledger.epochs if ledger.epochs else 0.0

    def _restart_s(self, trial: TrialRecord | None) -> float:
        """Return the seconds of an attempt beside its epochs; 0 for a trial that runs."""
        ledger = self._state.ledger
        if trial is not None and trial.number in ledger.running:
            return 0.0
        return max(0.0, ledger.held_s - ledger.trained_s) / max(1, ledger.attempts)
