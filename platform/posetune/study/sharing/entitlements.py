"""Computes how many trials each sweep may have at work on a cluster that they share.

`entitlements` is a function of what the sweeps want alone. Slots are given away one by one: first
by priority; among sweeps of the same priority each gets one, then the next slot goes to the sweep
that has the least for its share with that slot counted (the method of D'Hondt). So shares hold to
within a slot, and what a sweep does not want goes to the others.

Trials may differ in size: a slot of a sweep counts as the part of the cluster that it takes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Demand", "entitlements"]


@dataclass(frozen=True)
class Demand:
    """Says what a sweep holds of a cluster and what it wants."""

    sweep: str
    fits: int
    """How many of its trials the whole cluster holds when it is empty."""
    holds: int
    """Trials that have a place now."""
    wants: int
    """Trials that would be at work if the cluster were its own; those that are count."""
    priority: int = 0
    share: float = 1.0

    @property
    def size(self) -> Fraction:
        """The part of the cluster that one of its trials takes."""
        return Fraction(1, self.fits)


def entitlements(demands: Iterable[Demand]) -> dict[str, int]:
    """Return how many trials each sweep may have at work, by its name.

    Args:
        demands: of the sweeps that share the cluster. Where two have an equal claim to a slot, the
            one that comes first gets it.
    """
    ordered = list(demands)
    entitled = {demand.sweep: 0 for demand in ordered}
    left = Fraction(1)
    for priority in sorted({demand.priority for demand in ordered}, reverse=True):
        level = [demand for demand in ordered if demand.priority == priority]
        left = _give_level(level, entitled, left)
    return entitled


def _give_level(level: list[Demand], entitled: dict[str, int], left: Fraction) -> Fraction:
    """Give slots to the sweeps of one priority; return what is left of the cluster."""
    claims = [
        (_claim(demand, 1), place, demand)
        for place, demand in enumerate(level)
        if demand.wants > 0 and demand.fits > 0
    ]
    heapq.heapify(claims)
    while claims:
        _, place, demand = heapq.heappop(claims)
        if demand.size > left:
            continue  # nor will it fit later
        left -= demand.size
        entitled[demand.sweep] += 1
        if entitled[demand.sweep] < demand.wants:
            following = entitled[demand.sweep] + 1
            heapq.heappush(claims, (_claim(demand, following), place, demand))
    return left


def _claim(demand: Demand, slots: int) -> tuple[bool, Fraction]:
    """Return by what a sweep's claim to its next slot is ordered, the strongest first.

    Args:
        demand: of the sweep.
        slots: how many it would have with that slot.
    """
    return slots > 1, slots * demand.size / Fraction(demand.share)
