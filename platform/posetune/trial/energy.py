"""Measures the energy of one attempt by the counter of the devices that it was given."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

__all__ = ["EnergyMeter"]


class EnergyMeter:
    """Says how much energy an attempt has taken since it was asked the last time."""

    def __init__(self, read: Callable[[], float | None], share: float = 1.0) -> None:
        """Begin to measure.

        Args:
            read: returns what the attempt's devices have taken since any fixed moment, in joules;
                None where they have no counter. It is not asked again where it has none at first.
            share: part of the devices that the attempt asked for, above 0 and at most 1. A counter
                is of a whole device, also where several trials work on it.
        """
        self._read, self._share = read, share
        self._last = self._ask()

    def take(self) -> float | None:
        """Return the attempt's part of what was taken since the last call, or since the beginning.

        In joules; None where it is not known: there is no counter, or it was set back meanwhile.
        """
        if self._last is None:
            return None
        before, self._last = self._last, self._ask()
        if self._last is None or self._last < before:
            return None
        return (self._last - before) * self._share

    def _ask(self) -> float | None:
        """Ask the counter; whatever is wrong with it costs no trial anything."""
        with contextlib.suppress(Exception):
            return self._read()
        return None
