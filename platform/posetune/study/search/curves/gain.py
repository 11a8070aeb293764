"""Estimates what the rest of a sweep would gain, by the model of learning curves.

The settings of the best trial, of the open trials and of the most promising new points are drawn
together from the model, many times; the gain of a draw is by how much the best of the rest is
better than the best trial. What a trial owes to its seed is left out on either side: a lucky seed
is no gain, and the more trials are left the luckier is one of them.

Source: Makarova et al., Automatic Termination for Hyperparameter Optimization (AutoML 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from posetune.study.search.curves.model import log_expected_improvement
from posetune.study.search.curves.search import Outlook
from posetune.study.search.seeding import seed_for

__all__ = ["Gain", "gain_of_rest"]

MOST = 64
"""The rest is looked at by so many of its points, those of the highest expected improvement."""
DRAWS = 512
JITTER = 1e-6
"""Is added to the variances, so that the covariance can be factorised."""


class Gain(NamedTuple):
    """A gain in the objective's unit, 0 where nothing is gained."""

    mean: float
    low: float
    """With `high` the ends of an interval of 80 %."""
    high: float


def gain_of_rest(outlook: Outlook, open_trials: Sequence[int], *, number: int, new: int) -> Gain:
    """Return what a sweep is expected to gain over its best trial so far.

    Args:
        outlook: what the model expects; one of the sweep's own trials has been observed.
        open_trials: the trials that have not ended.
        number: of the next new trial.
        new: how many new trials may begin.
    """
    rest = _rest(outlook, open_trials, number, new)
    if not len(rest):
        return Gain(0.0, 0.0, 0.0)
    best = np.array([outlook.seat(outlook.leaders()[0])])
    found = outlook.settings(np.vstack([best, rest]))
    covariance = found.covariance_cc + JITTER * np.eye(len(found.mean_c))
    generator = np.random.default_rng(seed_for(outlook.seed, number, "gain"))
    normal = generator.normal(size=(DRAWS, len(found.mean_c)))
    drawn = found.mean_c + normal @ np.linalg.cholesky(covariance).T
    ahead, behind = drawn[:, 0], drawn[:, 1:].min(axis=1)
    pairs = zip(ahead, np.minimum(ahead, behind), strict=True)
    gains = np.array([abs(outlook.value(a) - outlook.value(b)) for a, b in pairs])
    low, high = np.quantile(gains, [0.1, 0.9])
    return Gain(float(gains.mean()), float(low), float(high))


def _rest(
    outlook: Outlook, open_trials: Sequence[int], number: int, new: int
) -> NDArray[np.float64]:
    """Return where the most promising points of the rest lie for the model, (C, D)."""
    seats: list[NDArray[np.float64]] = []
    gains: list[NDArray[np.float64]] = []
    points = outlook.new_points(number) if new else None
    if points is not None:
        most = np.argsort(-points.log_gains_c, kind="stable")[: min(new, MOST)]
        seats.append(points.points.seats_cd[most])
        gains.append(points.log_gains_c[most])
    if open_trials:
        seats.append(np.array([outlook.seat(n) for n in open_trials]))
        gains.append(log_expected_improvement(outlook.ends(open_trials), outlook.best))
    if not seats:
        return np.empty((0, 0))
    order = np.argsort(-np.concatenate(gains), kind="stable")[:MOST]
    return np.asarray(np.vstack(seats)[order])
