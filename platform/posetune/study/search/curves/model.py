"""Predicts where learning curves will end: a Gaussian process over settings and epochs.

A value after epoch e of a trial with settings x is taken to be

    end(x) + gap(x, e) + noise

The end is what the trial will come to; the gap is how far it is from there, and it is 0 at the last
epoch. Both are alike for settings that are alike (Matern 5/2), and both have a part of the trial's
own. The gap has the covariance of a random walk in a clock s(e) that runs from 1 after the first
epoch to 0 after the last, in epochs, in their logarithm, or halfway between.

Trials on the data of another store, from which a sweep may start, have ends that differ from its
own by a constant and by a further part that depends on their settings. The size of that part is
fitted, too: it is the discount at which they are believed.

`fit` finds the sizes of all that (`CurveShape`) for some observations, and `CurveModel` predicts
ends by them. Lower is better throughout. Everything is deterministic: the same observations give
the same prediction, in whichever process.

Source: Swersky et al., Freeze-Thaw Bayesian Optimization (2014); the constants are ours
(docs/results/search.md).

Shape letters:
    N observations, T trials, D coordinates of a point, C points to predict, W trials at work
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.spatial.distance import cdist
from scipy.special import erfcx, log_ndtr, ndtr

__all__ = [
    "CurveModel",
    "CurveShape",
    "Ends",
    "Observations",
    "Settings",
    "fit",
    "log_chance_to_win",
    "log_expected_improvement",
    "start_shape",
]

Clock = Literal["mean", "log", "linear"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MEAN_SPREAD = 1.0
"""Prior standard deviation of the mean of all ends."""
OTHER_SPREAD = 1.0
"""Prior standard deviation of how far apart the means of two stores are."""
SCALE_WIDTH, SIZE_WIDTH = 0.8, 0.7
"""Widths of the log-normal priors of length scales, and of standard deviations."""
SCALE_STEPS, SIZE_STEPS = (0.4, 2.5), (0.5, 2.0)
"""By what a fit multiplies them."""
OTHER_WIDTH, OTHER_STEPS = 1.5, (0.1, 0.3, 2.0, 6.0)
"""The same of what another store's ends have beyond the sweep's own, of which little is known."""
JITTER = 1e-8
"""Is added to the diagonal, so that it can be factorised."""


@dataclass(frozen=True)
class CurveShape:
    """How ends and gaps vary; in units of the transformed values."""

    end: float
    """Standard deviation of the end over the settings; so are the five below."""
    end_own: float
    """Of the trial's own part of the end, for example by its seed."""
    gap: float
    """Of what all gaps have in common."""
    gap_settings: float
    """Of what they owe to the settings."""
    gap_own: float
    """Of the trial's own part of the gap."""
    noise: float
    scales: tuple[float, ...]
    """How far apart two points are that still tell of each other, for each coordinate, (D,)."""
    clock: Clock = "mean"
    other: float = 0.5
    """Of the part of another store's ends that the sweep's own do not have: the larger it is, the
    less these tell."""


SIZES = ("end", "end_own", "gap", "gap_settings", "gap_own", "noise")


def start_shape(dimensions: int) -> CurveShape:
    """Return what is taken for likely before anything was observed."""
    scale = 0.7 * math.sqrt(max(1, dimensions) / 4)
    return CurveShape(0.7, 0.15, 0.7, 0.5, 0.25, 0.05, (scale,) * dimensions)


@dataclass(frozen=True)
class Observations:
    """Values at epochs of trials, transformed so that ends are about 1 apart."""

    points_td: Floats
    """Where each trial lies in the unit cube."""
    trials_n: Integers
    """Whose value it is: an index into the points."""
    epochs_n: Integers
    values_n: Floats
    last_epoch: int
    stores_t: Integers | None = None
    """On which store each trial was trained, 0 for the sweep's own; None where all are its own."""

    @property
    def stores_n(self) -> Integers | None:
        """On which store each value was measured; None where all are the sweep's own."""
        return None if self.stores_t is None else self.stores_t[self.trials_n]


class Settings(NamedTuple):
    """What is expected of the settings of some points, without what is a trial's own."""

    mean_c: Floats
    covariance_cc: Floats


class Ends(NamedTuple):
    """What is expected of ends."""

    mean_c: Floats
    spread_c: Floats
    """Standard deviations."""


def _clock(epochs_n: Integers, last: int, clock: Clock) -> Floats:
    if last <= 1:
        return np.zeros(len(epochs_n))
    e = np.clip(epochs_n, 1, last).astype(np.float64)
    in_log = np.log(last / e) / math.log(last)
    linear = (last - e) / (last - 1)
    if clock == "mean":
        return np.asarray((in_log + linear) / 2)
    return np.asarray(in_log if clock == "log" else linear)


def _matern(one: Floats, other: Floats, scales: tuple[float, ...]) -> Floats:
    """Return the likeness of points, 1 for equal ones."""
    lengths = np.asarray(scales)
    r = math.sqrt(5) * cdist(one / lengths, other / lengths)
    return np.asarray((1 + r + r**2 / 3) * np.exp(-r))


def _covariance(shape: CurveShape, seen: Observations, like_tt: Floats) -> Floats:
    """Return the covariance of observations with each other, (N, N)."""
    rows = seen.trials_n
    like = like_tt[np.ix_(rows, rows)]
    same = (rows[:, None] == rows[None, :]).astype(np.float64)
    s = _clock(seen.epochs_n, seen.last_epoch, shape.clock)
    gap = shape.gap**2 + shape.gap_settings**2 * like + shape.gap_own**2 * same
    found: Floats = MEAN_SPREAD**2 + shape.end**2 * like + shape.end_own**2 * same
    found = found + np.minimum(s[:, None], s[None, :]) * gap
    stores = seen.stores_n
    if stores is not None:
        both_there = (stores[:, None] == stores[None, :]) & (stores[:, None] > 0)
        found += both_there * (OTHER_SPREAD**2 + shape.other**2 * like)
    found[np.diag_indices_from(found)] += shape.noise**2 + JITTER
    return found


# -- the sizes -------------------------------------------------------------------------------------


def _likelihood(shape: CurveShape, seen: Observations, like_tt: Floats) -> float:
    """Return the logarithm of the likelihood of the observations, but for a constant."""
    lower = cholesky(_covariance(shape, seen, like_tt), lower=True, check_finite=False)
    white = solve_triangular(lower, seen.values_n, lower=True, check_finite=False)
    return float(-0.5 * white @ white - np.sum(np.log(np.diag(lower))))


def _prior(shape: CurveShape, start: CurveShape) -> float:
    """Return the logarithm of the prior density of a shape, but for a constant."""
    scales = np.log(np.asarray(shape.scales) / np.asarray(start.scales))
    sizes = [math.log(getattr(shape, name) / getattr(start, name)) for name in SIZES]
    other = math.log(shape.other / start.other) / OTHER_WIDTH
    return float(
        -0.5 * np.sum((scales / SCALE_WIDTH) ** 2)
        - 0.5 * sum((x / SIZE_WIDTH) ** 2 for x in sizes)
        - 0.5 * other**2
    )


def _steps(best: CurveShape, coordinate: int | str) -> Iterator[CurveShape]:
    """Yield the shapes beside one, along a coordinate."""
    if isinstance(coordinate, int):
        for factor in SCALE_STEPS:
            scales = list(best.scales)
            scales[coordinate] *= factor
            yield dataclasses.replace(best, scales=tuple(scales))
    elif coordinate == "clock":
        for clock in get_args(Clock):
            if clock != best.clock:
                yield dataclasses.replace(best, clock=clock)
    else:
        for factor in OTHER_STEPS if coordinate == "other" else SIZE_STEPS:
            yield dataclasses.replace(best, **{coordinate: getattr(best, coordinate) * factor})


def fit(seen: Observations) -> CurveShape:
    """Return the most likely shape that one step along each coordinate reaches from the start."""
    start = best = start_shape(seen.points_td.shape[1])
    like = _matern(seen.points_td, seen.points_td, best.scales)
    most = _likelihood(best, seen, like)
    coordinates: list[int | str] = [*range(len(best.scales)), *SIZES, "clock"]
    if seen.stores_t is not None:
        coordinates.append("other")
    for coordinate in coordinates:
        for shape in _steps(best, coordinate):
            changed = shape.scales != best.scales
            alike = _matern(seen.points_td, seen.points_td, shape.scales) if changed else like
            found = _likelihood(shape, seen, alike) + _prior(shape, start)
            if found > most:
                best, most, like = shape, found, alike
    return best


# -- predictions -----------------------------------------------------------------------------------


class CurveModel:
    """Predicts ends from observations."""

    def __init__(self, shape: CurveShape, seen: Observations) -> None:
        self._shape, self._seen = shape, seen
        like = _matern(seen.points_td, seen.points_td, shape.scales)
        self._lower = cholesky(_covariance(shape, seen, like), lower=True, check_finite=False)
        self._weights = cho_solve((self._lower, True), seen.values_n, check_finite=False)

    def ends(
        self,
        points_cd: Floats,
        trials_c: Integers,
        work_wd: Floats | None = None,
        at_work_w: Integers | None = None,
    ) -> Ends:
        """Predict the ends of some points, as if those at work had ended where they are expected.

        Args:
            points_cd: the points.
            trials_c: which observed trial each point is, as an index; any other number below 0 for
                a trial of its own that was not observed.
            work_wd: the points of the trials at work; none where it is left out.
            at_work_w: which trials these are, as `trials_c`.
        """
        shape = self._shape
        cross = self._with_observations(points_cd, trials_c)
        mean = cross @ self._weights
        white = solve_triangular(self._lower, cross.T, lower=True, check_finite=False)
        total = MEAN_SPREAD**2 + shape.end**2 + shape.end_own**2
        variance = total - np.einsum("nc,nc->c", white, white)
        if work_wd is not None and at_work_w is not None and len(at_work_w):
            beside = self._with_observations(work_wd, at_work_w)
            white_w = solve_triangular(self._lower, beside.T, lower=True, check_finite=False)
            own = self._between(work_wd, at_work_w, work_wd, at_work_w) - white_w.T @ white_w
            own[np.diag_indices_from(own)] += shape.noise**2 + JITTER
            cross_w = self._between(work_wd, at_work_w, points_cd, trials_c) - white_w.T @ white
            lower = cholesky(own, lower=True, check_finite=False)
            more = solve_triangular(lower, cross_w, lower=True, check_finite=False)
            variance -= np.einsum("wc,wc->c", more, more)
        return Ends(mean, np.sqrt(np.maximum(variance, 1e-10)))

    def settings(self, points_cd: Floats) -> Settings:
        """Predict what the settings of some points come to at the last epoch, together.

        A trial's own part of its end is left out, for example what it owes to its seed.
        """
        shape, seen = self._shape, self._seen
        like = _matern(points_cd, seen.points_td, shape.scales)
        cross = (MEAN_SPREAD**2 + shape.end**2 * like)[:, seen.trials_n]
        white = solve_triangular(self._lower, cross.T, lower=True, check_finite=False)
        total = MEAN_SPREAD**2 + shape.end**2 * _matern(points_cd, points_cd, shape.scales)
        return Settings(cross @ self._weights, total - white.T @ white)

    def _with_observations(self, points_cd: Floats, trials_c: Integers) -> Floats:
        """Return the covariance of ends with observations, (C, N)."""
        numbers = np.arange(len(self._seen.points_td))
        of_trials = self._between(points_cd, trials_c, self._seen.points_td, numbers)
        return np.asarray(of_trials[:, self._seen.trials_n])

    def _between(
        self, one: Floats, trials_one: Integers, other: Floats, trials_other: Integers
    ) -> Floats:
        """Return the covariance of ends with ends."""
        shape = self._shape
        same = trials_one[:, None] == trials_other[None, :]
        like = _matern(one, other, shape.scales)
        return np.asarray(MEAN_SPREAD**2 + shape.end**2 * like + shape.end_own**2 * same)


def log_expected_improvement(ends: Ends, best: float) -> Floats:
    """Return the logarithm of what each end is expected to be better than the best value.

    It has an order also where the improvement itself is too small for a floating-point number.
    """
    g = (best - ends.mean_c) / ends.spread_c
    low = np.minimum(g, -1.0)
    share = np.sqrt(np.pi / 2) * erfcx(-low / math.sqrt(2)) * -low
    log_density = -0.5 * low**2 - 0.5 * math.log(2 * math.pi)
    # Where the difference of nearly equal numbers has lost its digits, its leading term is taken.
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = np.where(low > -1e3, np.log1p(-share), -2 * np.log(-low))
    high = np.maximum(g, -1.0)
    density = np.exp(-0.5 * high**2) / math.sqrt(2 * math.pi)
    near = np.log(density + high * ndtr(high))
    return np.asarray(np.log(ends.spread_c) + np.where(g < -1.0, log_density + tail, near))


def log_chance_to_win(ends: Ends, best: float) -> Floats:
    """Return the logarithm of the probability that each end is better than the best value."""
    return np.asarray(log_ndtr((best - ends.mean_c) / ends.spread_c))
