"""Counts what a sweep spends, from its events.

GPU-hours are the seconds for which attempts hold their GPUs, times `resources.gpu`: from where an
attempt looks for its shared stages, through every epoch, also one that is trained again, to its
last committed event. A worker that died is counted until its death was noticed; what a worker did
after its driver died, or before it stood if it never did, is not known and not counted. A sweep
without GPUs (`gpu: 0`) counts the same seconds once, as trial-hours.

`decisions.budget_rule.BudgetRule` decides by these counts who may train on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from posetune.spec.sweep import Objective, SweepSpec
from posetune.study.records import ExpectedGain, SweepBest
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord

__all__ = [
    "BudgetLedger",
    "energy_in_words",
    "gain_in_words",
    "kilowatt_hours",
    "limit_in_words",
    "patience_over",
    "target_reached",
    "unit",
]


def unit(spec: SweepSpec) -> str:
    """Return what `budget.gpu_hours` counts in this sweep."""
    return "GPU-hours" if spec.resources.gpu else "trial-hours"


def limit_in_words(spec: SweepSpec) -> str:
    """Return the limit of GPU-hours, and what cost it follows from; empty without a limit."""
    budget = spec.budget
    if budget.limit_gpu_hours is None:
        return ""
    hours = f"{budget.limit_gpu_hours:g} {unit(spec)}"
    if not budget.is_limited_by_cost:
        return hours
    return f"{hours} (cost {budget.cost:g} at {budget.cost_per_gpu_hour:g} each)"


def kilowatt_hours(joules: float | None) -> float | None:
    """Return energy in kWh; None where it is not known."""
    return None if joules is None else joules / 3.6e6


def energy_in_words(joules: float | None, spec: SweepSpec) -> str:
    """Return what trials have taken of their GPUs' energy; empty where that was not measured."""
    energy = kilowatt_hours(joules)
    if energy is None:
        return ""
    part = ", as part of shared GPUs" if spec.resources.gpu_share < 1 else ""
    return f"{energy:.3g} kWh of GPUs{part}"


def target_reached(spec: SweepSpec, bests: Sequence[SweepBest]) -> str:
    """Return by whom a sweep's target is reached, in words; empty while nobody has.

    Args:
        spec: the sweep.
        bests: its best values so far, the newest last.
    """
    target = spec.budget.target
    if target is None or not bests or spec.objective.better(target, bests[-1].value):
        return ""
    best = bests[-1]
    by = f"trial {best.trial} with {best.value:.4g} after epoch {best.epoch}"
    return f"the target of {target:g} is reached by {by}"


def gain_in_words(gain: ExpectedGain) -> str:
    """Return what the rest of a sweep is expected to gain, beside the noise between seeds."""
    beside = "is below" if gain.is_noise else "may be above"
    return (
        f"the expected gain of what is left, {gain.mean:.2g} ({gain.low:.2g} to {gain.high:.2g}), "
        f"{beside} the noise between seeds, {gain.noise:.2g} ({gain.noise_from})"
    )


def patience_over(spec: SweepSpec, gain: ExpectedGain | None, in_a_row: int) -> str:
    """Return why a sweep's patience is over, in words; empty while it is not.

    Args:
        spec: the sweep.
        gain: what its rest is expected to gain, as it was known last.
        in_a_row: at the ends of how many trials in a row that was less than the noise.
    """
    patience = spec.budget.patience
    if patience is None or gain is None or in_a_row < patience:
        return ""
    trials = "1 trial" if patience == 1 else f"{patience} trials"
    return f"the patience of {trials} is over: {gain_in_words(gain)}"


@dataclass
class BudgetLedger:
    """Counts the time that a sweep has used; `SweepState` alone changes it."""

    held_s: float = 0.0
    """Seconds for which attempts have held their resources."""
    trained_s: float = 0.0
    """Seconds that the reported epochs took."""
    epochs: int = 0
    """Number of epochs that were reported."""
    attempts: int = 0
    open: set[int] = field(default_factory=set)
    """The trials that have not ended."""
    running: set[int] = field(default_factory=set)
    """The trials with an attempt under way."""
    squares: float = 0.0
    """Half the sum of squared differences of the log lengths of neighbouring epochs."""
    pairs: int = 0
    """Number of pairs of neighbouring epochs that `squares` sums."""
    best_complete: dict[int, float] = field(default_factory=dict)
    """The best value of complete trials, at each epoch where trials are compared."""

    @property
    def spread(self) -> float:
        """How epochs of one trial differ in length, in logarithms; 0 while none can be compared."""
        return math.sqrt(self.squares / self.pairs) if self.pairs else 0.0

    def count_epoch(self, before_s: float, seconds: float) -> None:
        """Count an epoch that was reported for the first time.

        Args:
            before_s: what the trial's epoch before took; 0 where there was none.
            seconds: what this one took.
        """
        self.trained_s += seconds
        self.epochs += 1
        if before_s and seconds:
            self.pairs += 1
            self.squares += math.log(seconds / before_s) ** 2 / 2

    def count_end(self, trial: TrialRecord, objective: Objective, compared: Iterable[int]) -> None:
        """Count the end of a trial.

        Args:
            trial: as it has ended.
            objective: says which values are better.
            compared: the epochs at which trials are compared.
        """
        self.running.discard(trial.number)
        self.open.discard(trial.number)
        if trial.state == TrialState.COMPLETE:
            self.count_best(trial, objective, compared)

    def count_best(self, trial: TrialRecord, objective: Objective, compared: Iterable[int]) -> None:
        """Count a complete trial's values among the best, where trials are compared."""
        for epoch in compared:
            value = trial.values.get(epoch)
            if value is not None:
                best = self.best_complete.get(epoch, value)
                self.best_complete[epoch] = objective.best((value, best))
