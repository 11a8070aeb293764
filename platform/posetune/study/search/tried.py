"""Counts the points of a search space that a sweep's trials have had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from posetune.spec.parameters import Scalar
from posetune.spec.sweep import SweepSpec
from posetune.study.search.space import Key, Space

__all__ = ["TriedPoints"]


class TriedPoints:
    """The different points of a finite space that were tried; of another space it knows none."""

    def __init__(self, spec: SweepSpec, tried: Iterable[Mapping[str, Scalar]] = ()) -> None:
        """Begin with the parameters that trials have had.

        Args:
            spec: the sweep, with the bounds that hold now.
            tried: the parameters of its trials; those outside of the bounds are no points of it.
        """
        self._search, self._space = spec.search, Space(spec.search)
        self._keys: set[Key] = set()
        for params in tried:
            self.note(params)

    def __eq__(self, other: object) -> bool:
        """Whether another one has the same bounds, and the same points of them were tried."""
        if not isinstance(other, TriedPoints):
            return NotImplemented
        return (self._search, self._keys) == (other._search, other._keys)

    __hash__ = None  # type: ignore[assignment]

    def note(self, params: Mapping[str, Scalar]) -> None:
        """Count a trial's point, where it is one and was not tried before."""
        if self._space.count is not None and self._space.has(params):
            self._keys.add(self._space.key(params))

    @property
    def count(self) -> int | None:
        """How many points the space has; None where it is not finite."""
        return self._space.count

    @property
    def left(self) -> int | None:
        """How many of them were not tried; None where the space is not finite."""
        return None if self._space.count is None else self._space.count - len(self._keys)
