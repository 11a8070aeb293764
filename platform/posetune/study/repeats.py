"""Ranks trials where several train the same parameters, each with a seed of its own.

The trials of a point have consecutive numbers, `sampler.repeats` of them. Points are ranked by the
mean of their trials' values, so a lucky seed does not win; the standard error says how well the
mean is known. A point whose trials have not all ended comes after those whose have.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

__all__ = ["PointMean", "point_means", "rank_trials"]


class PointMean(NamedTuple):
    """What the trials of one point reached."""

    mean: float
    error: float | None
    """Standard error of the mean; None where there is one value alone."""
    trials: int
    """How many trials have a value."""


def point_means(values: Mapping[int, float], repeats: int) -> dict[int, PointMean]:
    """Return the mean of each point, by the number of its first trial.

    Args:
        values: the value that counts of each trial that has one, by its number.
        repeats: how many trials train the same point.
    """
    of_point: dict[int, list[float]] = {}
    for number, value in values.items():
        of_point.setdefault(number - number % repeats, []).append(value)
    return {first: _mean(found) for first, found in of_point.items()}


def _mean(values: list[float]) -> PointMean:
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return PointMean(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return PointMean(mean, math.sqrt(variance / count), count)


def rank_trials(
    values: Mapping[int, float], ended: Collection[int], *, sign: int, repeats: int
) -> list[int]:
    """Return the numbers of the trials with a value, those of the best point first.

    Args:
        values: the value that counts of each trial that has one, by its number.
        ended: the trials that have ended.
        sign: what a value is multiplied by so that lower is better.
        repeats: how many trials train the same point.
    """
    means = point_means(values, repeats)

    def key(number: int) -> tuple[float, ...]:
        first = number - number % repeats
        is_open = repeats > 1 and any(n not in ended for n in range(first, first + repeats))
        return (is_open, sign * means[first].mean, first, sign * values[number], number)

    return sorted(values, key=key)
