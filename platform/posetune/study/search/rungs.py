"""Cuts trials by ASHA's rungs, a pure function of the reports in their order of arrival.

Ray Tune keeps its rungs in memory and loses them with the driver. Here `Rungs.decide` changes
nothing: what it says becomes part of a `Reported` event, and `Rungs.record` takes that in, live as
in a resume. The decisions are those of Ray's `AsyncHyperBandScheduler` with one
bracket (a test holds them equal): a report that reaches a rung is compared with the quantile of the
values that arrived there before it, then recorded; ties go on; not-a-number is never recorded.

Of the trials, a random share (`Pruner.audit_share`, drawn by sweep seed and trial) runs on where
ASHA would cut it, to show what cutting costs. What such a trial reports after that is not recorded
at the rungs: the others are judged as if it had been cut.

Source: Li et al., A System for Massively Parallel Hyperparameter Tuning (MLSys 2020).
"""

from __future__ import annotations

import bisect
import enum
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from posetune.spec.sweep import Objective, Pruner
from posetune.study.search.seeding import seed_for

__all__ = [
    "Decision",
    "Rungs",
    "Standing",
    "Verdict",
    "compared_epochs",
    "interpolate",
    "place",
    "rung_epochs",
]


class Decision(enum.StrEnum):
    """Says whether a trial goes on after a report."""

    CONTINUE = "continue"
    PRUNE = "prune"
    COMPLETE = "complete"


class Verdict(NamedTuple):
    """Holds what the rungs decide after a report."""

    decision: Decision
    is_audited: bool = False
    """Whether the trial would have been cut, and runs on to show what cutting costs."""


def rung_epochs(pruner: Pruner) -> list[int]:
    """Return the epochs at which trials are compared, ascending, below `max_epochs`.

    Whole-number arithmetic: Ray's floating-point logarithm loses the top rung for some settings
    (243 epochs, factor 3).
    """
    if pruner.name == "none":
        return []
    epochs, epoch = [], pruner.grace_epochs
    while epoch < pruner.max_epochs:
        epochs.append(epoch)
        epoch *= pruner.reduction_factor
    return epochs


Standing = tuple[int, float]
"""The last epoch of comparison that a trial reached, and its value there."""


def compared_epochs(pruner: Pruner) -> set[int]:
    """Return the epochs whose values may be compared between trials: the rungs and the last."""
    return {*rung_epochs(pruner), pruner.max_epochs}


def place(
    number: int,
    standing: Standing | None,
    *,
    epochs: int,
    value: float | None,
    objective: Objective,
) -> tuple[float, ...]:
    """Return what trials are sorted by, the best first.

    Those that reached a higher rung come first, and within a rung the values there decide: a
    trial that was cut or completed stands by its last value, an open one by its value at the
    last rung it passed. So no value is compared with one of another epoch.
    """
    if standing is not None:
        epoch, compared = standing
        return (-epoch, objective.sign * compared, number)
    return (0, -epochs, objective.sign * (value or 0.0), number)


def interpolate(ascending: Sequence[float], quantile: float) -> float:
    """Return a quantile of sorted values, equal to NumPy's to the last bit, and faster.

    NumPy's takes some 50 microseconds, which is most of what a simulated report takes.
    """
    place = (len(ascending) - 1) * quantile
    before = int(place)
    low = ascending[before]
    high = ascending[min(before + 1, len(ascending) - 1)]
    share = place - before
    if share >= 0.5:
        return high - (high - low) * (1 - share)
    return low + (high - low) * share


class Rungs:
    """The rungs of one sweep: `decide` of a report, then `record` it."""

    def __init__(self, pruner: Pruner, objective: Objective, seed: int = 0) -> None:
        """Begin with empty rungs.

        Args:
            pruner: the settings.
            objective: says which values are better.
            seed: the sweep's, which draws the trials that are audited.
        """
        self._seed = seed
        self._audit_share = pruner.audit_share
        self.audited: dict[int, int] = {}
        """The trials that run on where ASHA would have cut them, and at which epoch."""
        self.max_epochs = pruner.max_epochs
        self.quantile = (1 - 1 / pruner.reduction_factor) * 100 / 100  # as rounded as in Ray
        self.sign = -float(objective.sign)
        self.records = {epoch: array("d") for epoch in rung_epochs(pruner)}
        """For each rung its values in ascending order, negated where lower is better."""

    def decide(self, trial: int, epoch: int, value: float | None) -> Verdict:
        """Decide of a report that is not recorded yet; nothing changes.

        Args:
            trial: its number.
            epoch: 1 for the first. Reports come after every epoch, so rungs are met exactly.
            value: the objective, or None where it was not a number.
        """
        if epoch >= self.max_epochs:
            return Verdict(Decision.COMPLETE)
        record = self.records.get(epoch)
        if value is None or not record or trial in self.audited:
            return Verdict(Decision.CONTINUE)
        if self.sign * value >= interpolate(record, self.quantile):
            return Verdict(Decision.CONTINUE)
        if self._is_drawn(trial):
            return Verdict(Decision.CONTINUE, is_audited=True)
        return Verdict(Decision.PRUNE)

    def record(
        self, trial: int, epoch: int, value: float | None, *, is_audited: bool = False
    ) -> None:
        """Take a report in, with what was decided of it."""
        if trial in self.audited:
            return
        record = self.records.get(epoch)
        if record is not None and value is not None:
            bisect.insort(record, self.sign * value)
        if is_audited:
            self.audited[trial] = epoch

    def _is_drawn(self, trial: int) -> bool:
        if not self._audit_share:
            return False
        return seed_for(self._seed, trial, "audit") < self._audit_share * 2**31
