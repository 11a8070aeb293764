"""The points of a search space: how many there are, where they lie, and which is nearest.

Every parameter is an axis of a unit cube: a range on its own scale (logarithmic where it says so),
a choice of numbers by rank. The values of another choice have no order: each has an axis of its
own, and all are equally far apart. A space is finite where every parameter has a list of values or
a step; its points can then be told apart exactly, whatever rounding did to a value.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from posetune.spec.parameters import Choice, FloatRange, IntRange, Scalar
from posetune.spec.sweep import SweepSpec

__all__ = ["Key", "Space", "holds", "most_trials"]

Key: TypeAlias = tuple[float | int, ...]
"""Tells points apart: for each parameter the place of its value, or the value itself."""
Floats: TypeAlias = NDArray[np.float64]
Place: TypeAlias = tuple[int, ...]
"""A point of a finite space: for each parameter the place of its value."""


@dataclass(frozen=True)
class _Axis:
    """One parameter."""

    parameter: FloatRange | IntRange | Choice

    @property
    def values(self) -> Sequence[Scalar]:
        """The values of a choice, in their order where they have one."""
        assert isinstance(self.parameter, Choice)
        chosen = self.parameter.values
        return sorted(chosen, key=float) if self.is_ordered else chosen

    @property
    def is_ordered(self) -> bool:
        """Whether neighbouring values are alike."""
        return not isinstance(self.parameter, Choice) or self.parameter.is_ordered

    @property
    def size(self) -> int | None:
        """How many values there are; None for a range of real numbers."""
        if isinstance(self.parameter, Choice):
            return len(self.parameter.values)
        if self.parameter.step is None:
            return None
        low, high = self.parameter.bounds
        return math.floor((high - low) / self.parameter.step + 1e-9) + 1

    def place(self, value: Scalar) -> int:
        """Return the place of a value among all."""
        if isinstance(self.parameter, Choice):
            return next(
                i for i, v in enumerate(self.values) if v == value and type(v) is type(value)
            )
        assert self.parameter.step is not None
        return round((float(value) - self.parameter.bounds[0]) / self.parameter.step)

    def at(self, place: int) -> Scalar:
        """Return the value at a place."""
        if isinstance(self.parameter, Choice):
            return self.values[place]
        assert self.parameter.step is not None
        # The range's own grid: in floats, 0.01 + 2 * 0.1 is no value of it.
        return self.parameter.nearest(self.parameter.bounds[0] + place * self.parameter.step)

    def to_unit(self, value: Scalar) -> float:
        """Return where a value lies between the first and the last, in [0, 1]."""
        if isinstance(self.parameter, Choice):
            return self.place(value) / max(1, len(self.parameter.values) - 1)
        low, high = (float(bound) for bound in self.parameter.bounds)
        if self.parameter.log:
            return math.log(float(value) / low) / math.log(high / low)
        return (float(value) - low) / (high - low)

    def from_unit(self, unit: float) -> Scalar:
        """Return the value at a place in [0, 1], where all values have an equal share."""
        size = self.size
        if isinstance(self.parameter, Choice):
            assert size is not None
            return self.values[min(int(unit * size), size - 1)]
        low, high = self.parameter.bounds
        if self.parameter.log:
            value: float = float(low) * (high / low) ** unit
            bounded = min(max(value, float(low)), float(high))
            return round(bounded) if isinstance(self.parameter, IntRange) else bounded
        if size is None:
            return low + (high - low) * unit
        return self.at(min(int(unit * size), size - 1))

    def snap(self, units_c: Floats) -> tuple[Floats, Floats]:
        """Return what `from_unit` makes of many places at once.

        Args:
            units_c: places in [0, 1].

        Returns:
            Where the values lie for a model, (C, coordinates), and what tells them apart, (C,).
        """
        size, parameter = self.size, self.parameter
        if size is None:
            return units_c[:, None], units_c
        if not isinstance(parameter, Choice) and parameter.log:
            low, high = (float(bound) for bound in parameter.bounds)
            values = np.clip(np.round(low * (high / low) ** units_c), low, high)
            return (np.log(values / low) / math.log(high / low))[:, None], values - low
        places = np.minimum((units_c * size).astype(np.int64), size - 1)
        if not self.is_ordered:
            return np.eye(size)[places], places.astype(np.float64)
        seats = np.array([self.to_unit(self.at(0)), self.to_unit(self.at(size - 1))])
        evenly = seats[0] + (seats[1] - seats[0]) * places / max(1, size - 1)
        return evenly[:, None], places.astype(np.float64)


class Space:
    """The search space of a sweep."""

    def __init__(self, search: Mapping[str, FloatRange | IntRange | Choice]) -> None:
        self._search = search
        self._axes = {name: _Axis(parameter) for name, parameter in search.items()}
        sizes = [axis.size for axis in self._axes.values()]
        self.count = None if None in sizes else math.prod(size for size in sizes if size)
        """How many points there are; None where a parameter is any real number of a range."""

    @property
    def dimensions(self) -> int:
        """How many parameters there are."""
        return len(self._axes)

    def has(self, params: Mapping[str, Scalar]) -> bool:
        """Whether parameters are a point of the space.

        Those of a trial may lie outside of it since a person has edited the sweep's bounds.
        """
        return all(n in params and holds(p, params[n]) for n, p in self._search.items())

    def key(self, params: Mapping[str, Scalar]) -> Key:
        """Return what tells a point from every other."""
        return tuple(
            float(params[name]) if axis.size is None else axis.place(params[name])
            for name, axis in self._axes.items()
        )

    def to_unit(self, params: Mapping[str, Scalar]) -> list[float]:
        """Return where a point lies in the cube that a model sees, all coordinates in [0, 1]."""
        found: list[float] = []
        for name, axis in self._axes.items():
            if axis.is_ordered:
                found.append(axis.to_unit(params[name]))
            else:
                place, size = axis.place(params[name]), axis.size or 0
                found += [float(i == place) for i in range(size)]
        return found

    def snap(self, units_cd: Floats) -> tuple[Floats, list[Key]]:
        """Return the points at many places in [0, 1], with one coordinate for each parameter.

        Returns:
            Where they lie in the cube that a model sees, and their keys in a finite space.
        """
        parts = [
            axis.snap(column) for axis, column in zip(self._axes.values(), units_cd.T, strict=True)
        ]
        seats = np.hstack([seat for seat, _ in parts])
        if self.count is None:
            return seats, []
        keys = np.column_stack([place for _, place in parts]).astype(np.int64)
        return seats, [tuple(row) for row in keys.tolist()]

    def from_unit(self, unit: Sequence[float] | NDArray[np.float64]) -> dict[str, Scalar]:
        """Return the point at a place in [0, 1], with one coordinate for each parameter."""
        pairs = zip(self._axes.items(), unit, strict=True)
        return {name: axis.from_unit(float(place)) for (name, axis), place in pairs}

    def place_in_unit(self, params: Mapping[str, Scalar]) -> list[float]:
        """Return a place that `from_unit` turns into the point, one coordinate for each parameter.

        A value of a list lies in the middle of its share.
        """
        found: list[float] = []
        for name, axis in self._axes.items():
            is_even = not isinstance(axis.parameter, Choice) and axis.parameter.log
            if axis.size is None or is_even:
                found.append(axis.to_unit(params[name]))
            else:
                found.append((axis.place(params[name]) + 0.5) / axis.size)
        return found

    def points(self) -> Iterator[dict[str, Scalar]]:
        """Yield every point of a finite space."""
        ranges = [range(axis.size or 0) for axis in self._axes.values()]
        return map(self._at, itertools.product(*ranges))

    def nearest_untried(
        self, params: Mapping[str, Scalar], tried: Collection[Key]
    ) -> dict[str, Scalar]:
        """Return the nearest point of a finite space that was not tried, maybe the given one.

        The search goes outwards from the point, so what it takes depends on the points that were
        tried and not on those that there are.

        Raises:
            ValueError: every point was tried.
        """
        start: Place = tuple(axis.place(params[name]) for name, axis in self._axes.items())
        queue, seen = [(0.0, start)], {start}
        while queue:
            _, place = heapq.heappop(queue)
            if place not in tried:
                return self._at(place)
            for near in self._neighbours(place):
                if near not in seen:
                    seen.add(near)
                    heapq.heappush(queue, (self._distance(start, near), near))
        raise ValueError("every point was tried")

    def _at(self, place: Place) -> dict[str, Scalar]:
        pairs = zip(self._axes.items(), place, strict=True)
        return {name: axis.at(i) for (name, axis), i in pairs}

    def _neighbours(self, place: Place) -> Iterator[Place]:
        for d, axis in enumerate(self._axes.values()):
            size, here = axis.size or 0, place[d]
            steps = (here - 1, here + 1) if axis.is_ordered else range(size)
            for there in steps:
                if 0 <= there < size and there != here:
                    yield (*place[:d], there, *place[d + 1 :])

    def _distance(self, one: Place, other: Place) -> float:
        """Return how far two points are apart, squared; two values without order are 1 apart."""
        total = 0.0
        for a, b, axis in zip(one, other, self._axes.values(), strict=True):
            if a != b:
                apart = axis.to_unit(axis.at(a)) - axis.to_unit(axis.at(b))
                total += apart**2 if axis.is_ordered else 1.0
        return total


def holds(parameter: FloatRange | IntRange | Choice, value: Any) -> bool:
    """Whether a value is one that a searched parameter may have."""
    if isinstance(parameter, Choice):
        return any(v == value and type(v) is type(value) for v in parameter.values)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return parameter.holds(value)


def most_trials(spec: SweepSpec) -> int:
    """Return how many trials a sweep can have: those of its budget, or of its whole space."""
    points = Space(spec.search).count
    if points is None or spec.sampler.name == "one_by_one":
        return spec.budget.trials
    return min(spec.budget.trials, points * spec.sampler.repeats)
