"""Computes where trials find room on a cluster, from its nodes alone, without Ray."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "HeldResources",
    "Node",
    "accepts",
    "describe_wait",
    "lacking_slots",
    "shown",
    "slots",
]

Amounts = Mapping[str, float]
"""How many of each resource, by its name: `cpu` and `gpu`."""

_ALMOST = 1e-9
"""Tolerance for sums of fractions, which are not exact."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster that is alive."""

    id: str
    total: Amounts
    free: Amounts
    labels: Mapping[str, str]
    leaving: bool = False
    """Whether the node is being drained; nothing new is placed on it then."""


@dataclass(frozen=True)
class HeldResources:
    """The resources of a node that one trial holds."""

    sweep: str
    node: str
    amounts: Amounts


def accepts(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Return whether labels are as wanted, each `value`, `!value`, `in(a, b)` or `!in(a, b)`."""
    for name, condition in wanted.items():
        listed = condition.removeprefix("!")
        inside = re.fullmatch(r"in\((.*)\)", listed)
        values = [v.strip() for v in inside[1].split(",")] if inside else [listed]
        if (labels.get(name) in values) == condition.startswith("!"):
            return False
    return True


def slots(asked: Amounts, wanted: Mapping[str, str], nodes: Iterable[Node]) -> int:
    """Return how many trials the cluster holds at once when it is empty; none spans two nodes."""
    return sum(_fit(asked, node) for node in nodes if _usable(node, wanted))


def lacking_slots(wanted: int, *, under_way: int, slots: int, entitled: int | None = None) -> int:
    """Return how many slots more a sweep can use than it has.

    A sweep that other ones are served before lacks none: what comes goes to them first.

    Args:
        wanted: trials that would be at work if there were room for all.
        under_way: trials that are at work or wait for a place.
        slots: trials that the nodes hold.
        entitled: how many of these the sweep may have (default: all, because nobody else wants
            them).
    """
    if entitled == 0:
        return 0
    own = slots if entitled is None else min(slots, entitled)
    return max(0, wanted - max(own, under_way))


def describe_wait(
    asked: Amounts,
    wanted: Mapping[str, str],
    nodes: Sequence[Node],
    holdings: Sequence[HeldResources],
) -> str:
    """Return why a trial has no place: what is missing on the cluster, and who holds it."""
    usable = [node for node in nodes if _usable(node, wanted)]
    if not usable:
        return _describe_no_node(wanted, nodes)
    if not any(_fit(asked, node) for node in usable):
        largest = {k: max(node.total.get(k, 0.0) for node in usable) for k in asked}
        return f"a node with {shown(asked)}; the largest that may be used has {shown(largest)}"
    missing = [k for k, v in asked.items() if not any(_has(node.free, k, v) for node in usable)]
    if not missing:
        return f"{shown(asked)} together on one node; it is free only in parts"
    ids = {node.id for node in usable}
    held = {
        sweep: {k: sum(h.amounts.get(k, 0.0) for h in found) for k in missing}
        for sweep in sorted({h.sweep for h in holdings})
        if (found := [h for h in holdings if h.sweep == sweep and h.node in ids])
    }
    taken = {
        k: sum(node.total.get(k, 0.0) - node.free.get(k, 0.0) for node in usable) for k in asked
    }
    others = {k: taken[k] - sum(amounts[k] for amounts in held.values()) for k in missing}
    holders = [f"sweep {name} holds {shown(amounts)}" for name, amounts in held.items()]
    if any(amount > _ALMOST for amount in others.values()):
        holders.append(f"others hold {shown(others)}")
    total = {k: sum(node.total.get(k, 0.0) for node in usable) for k in missing}
    needed = shown({k: asked[k] for k in missing})
    return f"{needed}; of {shown(total)} that may be used {' and '.join(holders) or 'none is free'}"


def shown(amounts: Amounts) -> str:
    """Return amounts as text, for example `cpu 4 and gpu 0.5`; a zero amount is left out."""
    parts = [f"{kind} {amount:g}" for kind, amount in amounts.items() if amount > _ALMOST]
    return " and ".join(parts) or "nothing"


def _usable(node: Node, wanted: Mapping[str, str]) -> bool:
    return not node.leaving and accepts(wanted, node.labels)


def _fit(asked: Amounts, node: Node) -> int:
    """Return how many trials fit on a node; a trial's part of a GPU lies on a single GPU."""
    counts = []
    for kind, amount in asked.items():
        total = node.total.get(kind, 0.0)
        if kind == "gpu" and 0 < amount < 1:
            counts.append(int(total + _ALMOST) * int(1 / amount + _ALMOST))
        elif amount > 0:
            counts.append(int(total / amount + _ALMOST))
    return min(counts)


def _has(free: Amounts, kind: str, amount: float) -> bool:
    return free.get(kind, 0.0) >= amount - _ALMOST


def _describe_no_node(wanted: Mapping[str, str], nodes: Sequence[Node]) -> str:
    labels = ", ".join(f"{name}: {value}" for name, value in wanted.items())
    node = f"a node with labels {{{labels}}}" if wanted else "a node"
    leaving = sum(n.leaving and accepts(wanted, n.labels) for n in nodes)
    if leaving:
        return f"{node}; {leaving} that would do are being drained"
    found = Counter(
        ", ".join(f"{name}: {n.labels.get(name, '-')}" for name in wanted) for n in nodes
    )
    return f"{node}; there is " + (
        "; ".join(f"{count} with {{{text}}}" for text, count in sorted(found.items())) or "none"
    )
