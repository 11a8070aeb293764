"""Makes families of learning curves up: searches whose curves cross a little, or a lot.

A world is a grid of five fields with three values each, 243 points. The end of a point is a smooth
function of its fields; the way there is exponential and follows the cosine of a rate that decays,
and how far it is from the end depends on the fields as well. The more it does, the less the first
epochs say of the end. One point in twenty diverges.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from support.curves import Curves

__all__ = ["CROSSINGS", "made_curves"]

EPOCHS = 27
EARLY = 6
LEVELS = (0.0, 0.5, 1.0)
FIELDS = ("a", "b", "c", "d", "e")
CROSSINGS = {"mild": 0.8, "strong": 0.5}
"""Rank correlation of what is reported after six epochs with the end."""
DIVERGING = 0.05
NOISE_MM = 0.25


def made_curves(family: str, seed: int) -> Curves:
    """Return one world of a family.

    Args:
        family: `mild` or `strong`.
        seed: draws it.
    """
    generator = np.random.default_rng((seed, sorted(CROSSINGS).index(family)))
    points = np.array(list(itertools.product(LEVELS, repeat=len(FIELDS))))
    ends = 60 + 40 * _smooth(points, generator)
    own = _smooth(points, generator)
    tau = 2 + 6 * _smooth(points, generator)
    noise = NOISE_MM * generator.normal(size=(len(points), EPOCHS))
    diverges = generator.random(len(points)) < DIVERGING
    low, high = 0.0, 400.0
    for _ in range(40):  # the more the gap depends on the fields, the less is known early
        middle = (low + high) / 2
        curves = _curves(ends, middle * own, tau) + noise
        alike = float(spearmanr(curves[:, EARLY - 1], ends).statistic)
        low, high = (middle, high) if alike > CROSSINGS[family] else (low, middle)
    curves = _curves(ends, low * own, tau) + noise
    curves[diverges] = 120 + 3 * curves[diverges]
    keys = itertools.product(LEVELS, repeat=len(FIELDS))
    values = {key: tuple(map(float, curve)) for key, curve in zip(keys, curves, strict=True)}
    return Curves(dict.fromkeys(FIELDS, LEVELS), values)


def _smooth(points: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Return a smooth function of the points, from 0 to about 1 in most of them."""
    optimum = generator.uniform(0, 1, points.shape[1])
    weights = generator.dirichlet(np.ones(points.shape[1]))
    value = ((points - optimum) ** 2 * weights).sum(axis=1)
    one, other = generator.choice(points.shape[1], 2, replace=False)
    value += 0.2 * np.sin(math.pi * points[:, one] * points[:, other] * generator.uniform(0.5, 1))
    value = value - value.min()
    return np.asarray(value / np.quantile(value, 0.9))


def _curves(
    ends: NDArray[np.float64], own: NDArray[np.float64], tau: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the curves without noise, (points, epochs)."""
    epochs = np.arange(1, EPOCHS + 1)
    falling = np.exp(-epochs / tau[:, None])
    decaying = (1 + np.cos(math.pi * epochs / EPOCHS)) / 2
    gap = 25 * falling + 0.5 * own[:, None] * (falling + decaying)
    return np.asarray(ends[:, None] + gap - gap[:, -1:])
