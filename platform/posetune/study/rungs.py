"""ASHA's rungs as a pure function of the reports in their order of arrival.

Ray Tune keeps its rungs in memory and loses them with the driver. Here they can be rebuilt at any
time by replaying the reports. The decisions are those of Ray's `AsyncHyperBandScheduler` with one
bracket (a test holds them equal): a report that reaches a rung is compared with the quantile of the
values that arrived there before it, then recorded; ties go on; not-a-number is never recorded.

Of the trials, a random share (`Pruner.audit_share`, drawn by sweep seed and trial) runs on where
ASHA would cut it, to show what cutting costs. What such a trial reports after that is not recorded
at the rungs: the others are judged as if it had been cut.

Source: Li et al., A System for Massively Parallel Hyperparameter Tuning (MLSys 2020).
"""

from __future__ import annotations

import enum
from array import array

import numpy as np

from posetune.spec.sweep import Pruner
from posetune.study.seeding import seed_for

__all__ = ["Decision", "Rungs", "Standing", "compared_epochs", "place", "rung_epochs"]


class Decision(enum.StrEnum):
    """What becomes of a trial after a report."""

    CONTINUE = "continue"
    PRUNE = "prune"
    COMPLETE = "complete"


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
    number: int, standing: Standing | None, *, epochs: int, value: float | None, mode: str
) -> tuple[float, ...]:
    """Return what trials are sorted by, the best first.

    Those that reached a higher rung come first, and within a rung the values there decide: a
    trial that was cut or completed stands by its last value, an open one by its value at the
    last rung it passed. So no value is compared with one of another epoch.
    """
    sign = 1 if mode == "min" else -1
    if standing is not None:
        epoch, compared = standing
        return (-epoch, sign * compared, number)
    return (0, -epochs, sign * (value or 0.0), number)


class Rungs:
    """The rungs of one sweep; feed it every report once, in order."""

    def __init__(self, pruner: Pruner, mode: str, seed: int = 0) -> None:
        """Begin with empty rungs.

        Args:
            pruner: the settings.
            mode: `min` or `max`.
            seed: the sweep's, which draws the trials that are audited.
        """
        self._seed = seed
        self._audit_share = pruner.audit_share
        self.audited: dict[int, int] = {}
        """The trials that run on where ASHA would have cut them, and at which epoch."""
        self.max_epochs = pruner.max_epochs
        self.percentile = (1 - 1 / pruner.reduction_factor) * 100
        self.sign = -1.0 if mode == "min" else 1.0
        self.records = {epoch: array("d") for epoch in rung_epochs(pruner)}
        """For each rung its values in order of arrival, negated where lower is better."""

    def report(self, trial: int, epoch: int, value: float | None) -> Decision:
        """Record a trial's value after `epoch` and decide.

        Args:
            trial: its number.
            epoch: 1 for the first. Reports come after every epoch, so rungs are met exactly.
            value: the objective, or None where it was not a number.
        """
        decision = self._decide(epoch, value)
        if trial in self.audited:
            return Decision.COMPLETE if decision == Decision.COMPLETE else Decision.CONTINUE
        self._record(epoch, value)
        if decision == Decision.PRUNE and self._is_drawn(trial):
            self.audited[trial] = epoch
            return Decision.CONTINUE
        return decision

    def replay(self, trial: int, epoch: int, value: float | None) -> None:
        """Record a value whose decision is known already, as `report` would, but faster."""
        if self._is_drawn(trial):
            self.report(trial, epoch, value)
        else:
            self._record(epoch, value)

    def _is_drawn(self, trial: int) -> bool:
        if not self._audit_share:
            return False
        return seed_for(self._seed, trial, "audit") < self._audit_share * 2**31

    def _record(self, epoch: int, value: float | None) -> None:
        record = self.records.get(epoch)
        if record is not None and value is not None:
            record.append(self.sign * value)

    def _decide(self, epoch: int, value: float | None) -> Decision:
        if epoch >= self.max_epochs:
            return Decision.COMPLETE
        record = self.records.get(epoch)
        if value is None or not record:
            return Decision.CONTINUE
        # A view of the array, not a list: the cost stays small over thousands of values.
        cut = self.sign * value < np.percentile(np.frombuffer(record), self.percentile)
        return Decision.PRUNE if cut else Decision.CONTINUE
