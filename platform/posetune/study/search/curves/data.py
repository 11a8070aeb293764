"""Turns the reports of a sweep into what the curve model sees.

What was observed follows from a prefix of the sweep's reports, in the order of its events, so it is
the same however often the driver was killed since. Values are turned so that lower is better, and
into units of the distance between the median and the best; those worse than the median are
compressed, so that a diverging trial does not set the scale. The trials of another store have a
median of their own, and a unit of their own where that is larger.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from posetune.spec.parameters import Scalar
from posetune.spec.sweep import SweepSpec
from posetune.study.search.curves.model import Observations
from posetune.study.search.space import Space
from posetune.study.search.start_from import PriorTrial
from posetune.study.trials import TrialRecord

__all__ = ["CurveData", "Reached", "Scale", "Seen"]

MOST_OBSERVATIONS = 384
"""A model of more takes too long for a decision."""
MOST_TRIALS = 256
"""Of so many trials at most: those that got furthest, and the best of them. What is left tells of
their way there."""


@dataclass
class Reached:
    """How far the trials are after some of a sweep's reports."""

    epochs: dict[int, int] = field(default_factory=dict)
    """Epochs reported, by trial; those of other sweeps have numbers below 0."""
    failed: set[int] = field(default_factory=set)
    best: float = math.inf
    """The best value of the sweep's own trials, turned so that lower is better."""

    def copy(self) -> Reached:
        """Return what does not change any more."""
        return Reached(dict(self.epochs), set(self.failed), self.best)


@dataclass(frozen=True)
class Scale:
    """How values are transformed."""

    sign: float
    median: float
    unit: float

    def transform(self, value: float) -> float:
        """Return a value in units of the model."""
        z = (self.sign * value - self.median) / self.unit
        return math.log1p(z) if z > 0 else z

    def back(self, z: float) -> float:
        """Return the value that is transformed to `z`."""
        # A prediction far above all that was seen says no more than that it is far above.
        above = math.expm1(min(z, 50.0)) if z > 0 else z
        return self.sign * (self.median + self.unit * above)


@dataclass(frozen=True)
class Seen:
    """Observations, and what they stand for."""

    observations: Observations
    index: Mapping[int, int]
    """The index of each observed trial among the points."""
    scale: Scale
    best: float
    """The best value of the sweep's own trials, transformed."""


class CurveData:
    """The curves of one sweep, and of the trials of others that it starts from."""

    def __init__(
        self, spec: SweepSpec, trials: Sequence[TrialRecord], prior: Sequence[PriorTrial] = ()
    ) -> None:
        """See the trials of a sweep.

        Args:
            spec: the sweep.
            trials: its trials; they change with its events.
            prior: trials of other sweeps within its search space.
        """
        self.space = Space(spec.search)
        self.last_epoch = spec.pruner.max_epochs
        self._sign = float(spec.objective.sign)
        self._trials, self._prior = trials, prior
        digests = sorted({trial.store for trial in prior if trial.store})
        self._stores = {digest: 1 + place for place, digest in enumerate(digests)}
        """The number of each other store from which the sweep has trials."""
        self._units: dict[int, list[float]] = {}
        self._curves: dict[int, tuple[int, dict[int, float]]] = {}
        """The curve of each trial that was asked for last, and up to which epoch it goes."""

    def begin(self) -> Reached:
        """Return the progress before the sweep's first report."""
        return Reached({-1 - i: max(trial.values) for i, trial in enumerate(self._prior)})

    def note_report(self, progress: Reached, number: int, epoch: int) -> None:
        """Take a trial's report into what was reached."""
        progress.epochs[number] = epoch
        self._curves.pop(number, None)
        value = self._trials[number].values.get(epoch)
        if value is not None:
            progress.best = min(progress.best, self._sign * value)

    def unit(self, number: int) -> list[float]:
        """Return where a trial lies in the unit cube."""
        if number not in self._units:
            self._units[number] = self.space.to_unit(self._params(number))
        return self._units[number]

    def see(
        self,
        progress: Reached,
        *,
        first: Collection[int] = (),
        now: tuple[int, int, float | None] | None = None,
    ) -> Seen | None:
        """Return what was observed; None where that is nothing.

        Args:
            progress: after the reports that count.
            first: the trials that are to be among those observed.
            now: a report that is not recorded yet: its trial, epoch and value.
        """
        curves: dict[int, dict[int, float]] = {}
        best = progress.best
        for number, reached in progress.epochs.items():
            curves[number] = self._curve(number, reached)
        number, epoch, value = now or (0, 0, None)
        if value is not None:
            curves[number] = {**curves.get(number, {}), epoch: self._sign * value}
            best = min(best, self._sign * value)
        if math.isinf(best):
            return None
        curves = {number: curve for number, curve in curves.items() if curve}
        lasts = {number: curve[max(curve)] for number, curve in curves.items()}
        own = [number for number in curves if not self._store(number)]
        scale = _scale(self._sign, [lasts[number] for number in own], best)
        scales = {there: self._scale_there(there, curves, scale) for there in self._there(curves)}
        scales[0] = scale
        worst = max(v for number in own for v in curves[number].values())
        for number in progress.failed:
            curves[number] = {self.last_epoch: worst}
            lasts[number] = worst
        reporting = None if now is None else now[0]

        def key(n: int) -> tuple[float, ...]:
            is_other = self._store(n) > 0
            return (n != reporting, n not in first, is_other, -max(curves[n]), lasts[n], n)

        order = sorted(lasts, key=key)
        chosen = [(number, max(curves[number])) for number in order[:MOST_TRIALS]]
        on_the_way = [(n, e) for n, last in chosen for e in _told_epochs(curves[n]) if e != last]
        chosen += on_the_way[: MOST_OBSERVATIONS - len(chosen)]
        index = {number: i for i, number in enumerate(order[:MOST_TRIALS])}
        values = [scales[self._store(n)].transform(self._sign * curves[n][e]) for n, e in chosen]
        stores = np.array([self._store(number) for number in index], dtype=np.int64)
        observations = Observations(
            points_td=np.array([self.unit(number) for number in index]),
            trials_n=np.array([index[number] for number, _ in chosen], dtype=np.int64),
            epochs_n=np.array([epoch for _, epoch in chosen], dtype=np.int64),
            values_n=np.array(values),
            last_epoch=self.last_epoch,
            stores_t=stores if stores.any() else None,
        )
        return Seen(observations, index, scale, scale.transform(self._sign * best))

    def _store(self, number: int) -> int:
        """Return on which store a trial was trained, 0 for the sweep's own."""
        digest = self._prior[-1 - number].store if number < 0 else ""
        return self._stores[digest] if digest else 0

    def _there(self, curves: Collection[int]) -> set[int]:
        """Return the other stores on which some trials were trained."""
        return {self._store(number) for number in curves} - {0}

    def _scale_there(
        self, store: int, curves: Mapping[int, Mapping[int, float]], own: Scale
    ) -> Scale:
        """Return how the values of another store are transformed."""
        there = [curve for number, curve in curves.items() if self._store(number) == store]
        best = min(value for curve in there for value in curve.values())
        found = _scale(self._sign, [curve[max(curve)] for curve in there], best)
        return Scale(found.sign, found.median, max(found.unit, own.unit))

    def _curve(self, number: int, reached: int) -> dict[int, float]:
        """Return a trial's values by epoch, turned so that lower is better."""
        known_up_to, known = self._curves.get(number, (0, {}))
        if known_up_to == reached:
            return known
        values: Mapping[int, float | None]
        values = self._prior[-1 - number].values if number < 0 else self._trials[number].values
        epochs = [*_powers(reached), reached]
        found = {e: v for e in epochs if (v := values.get(e)) is not None}
        if not found:  # none of these was a number: the last one that was
            numbers = [e for e, v in values.items() if v is not None and e <= reached]
            found = {e: v for e in numbers[-1:] if (v := values[e]) is not None}
        curve = {epoch: self._sign * value for epoch, value in found.items()}
        self._curves[number] = reached, curve
        return curve

    def _params(self, number: int) -> Mapping[str, Scalar]:
        return self._prior[-1 - number].params if number < 0 else self._trials[number].params


def _powers(reached: int) -> list[int]:
    return [2**i for i in range(reached.bit_length()) if 2**i < reached]


def _told_epochs(curve: Mapping[int, float]) -> list[int]:
    return sorted(curve, reverse=True)


def _scale(sign: float, lasts: list[float], best: float) -> Scale:
    """Return how values are transformed.

    Args:
        sign: of the objective.
        lasts: the newest value of each trial, lower is better.
        best: the best value that any trial of the sweep reported.
    """
    median = float(np.median(lasts))
    unit = median - best
    if unit <= 1e-12 * max(1.0, abs(median)):
        unit = max(abs(value - median) for value in lasts) or max(1e-6, abs(median))
    return Scale(sign, median, unit)
