"""Reads who holds what of the clusters that a study's drivers work on, and who waits for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, select

from posetune.study.sharing.demands import LiveDemand, read_demands
from posetune.study.sharing.entitlements import Demand, entitlements
from posetune.study.tables import journal, schema
from posetune.study.tables.database import Database
from posetune.study.tables.lease import is_live

__all__ = ["QueueEntry", "SharedSlots", "read_queue", "read_shared_slots"]


@dataclass(frozen=True)
class QueueEntry:
    """Says what a sweep with a living driver holds, and what it waits for."""

    sweep: str
    owner: str
    """Who started it, as person@host; empty where that is not known."""
    cluster: str
    """Tells one Ray cluster from another; empty where the sweep shares none."""
    holds: int
    """Trials that have a place."""
    cpu: float
    """Processor cores of each of them."""
    gpu: float
    """GPUs of each of them."""
    open: int
    """Trials that are still to be started or continued."""
    entitled: int | None
    """Trials that it may have at work now; None where nobody else wants its cluster."""
    wants: int | None
    """Trials that it would have at work if the cluster were its own; None as above."""
    priority: int | None
    share: float | None
    waits_for: str
    """What it waits for; empty while it goes on."""


@dataclass(frozen=True)
class SharedSlots:
    """Says how much of a cluster a sweep has that others want, too."""

    demand: Demand
    entitled: int
    """Trials that it may have at work now."""


def read_shared_slots(connection: Connection) -> dict[str, SharedSlots]:
    """Return what the sweeps have that share a cluster with another one, by their names."""
    return _shared(read_demands(connection))


def read_queue(database: Database) -> list[QueueEntry]:
    """Return the sweeps that a driver is at work on: a higher priority first, then by their age."""
    with database.reading() as connection:
        found = read_demands(connection)
        clusters = {one.demand.sweep: one.cluster for one in found}
        shared = _shared(found)
        entries = [
            _entry(connection, row, shared.get(row["name"]), clusters.get(row["name"], ""))
            for row in _driven(connection)
        ]
    return sorted(entries, key=lambda entry: -(entry.priority or 0))


def _shared(found: Sequence[LiveDemand]) -> dict[str, SharedSlots]:
    by_cluster: dict[str, list[Demand]] = {}
    for one in found:
        by_cluster.setdefault(one.cluster, []).append(one.demand)
    shared: dict[str, SharedSlots] = {}
    for demands in by_cluster.values():
        if len(demands) > 1:
            entitled = entitlements(demands)
            shared |= {d.sweep: SharedSlots(d, entitled[d.sweep]) for d in demands}
    return shared


def _driven(connection: Connection) -> list[RowMapping]:
    """Return the rows of the sweeps that a living driver is at work on, oldest first."""
    leases = connection.execute(select(schema.lease)).all()
    live = [lease.sweep_id for lease in leases if is_live(connection, lease)]
    query = select(schema.sweep).where(schema.sweep.c.id.in_(live)).order_by(schema.sweep.c.id)
    return list(connection.execute(query).mappings())


def _entry(
    connection: Connection, row: RowMapping, shared: SharedSlots | None, cluster: str
) -> QueueEntry:
    state = journal.fold_sweep(connection, row)
    resources = state.spec.resources
    holds = sum(state.trials[n].holding.since is not None for n in state.ledger.running)
    demand = None if shared is None else shared.demand
    waits_for = f"held by {state.held_by}" if state.held_by else state.waits_for_room
    if shared is not None and not waits_for:
        waits_for = _waits_for_others(shared, holds)
    return QueueEntry(
        sweep=row["name"],
        owner=state.owner,
        cluster="" if shared is None else cluster,
        holds=holds,
        cpu=resources.cpu,
        gpu=resources.gpu,
        open=len(state.waiting) + len(state.paused) + state.most_trials - len(state.trials),
        entitled=None if shared is None else shared.entitled,
        wants=None if demand is None else demand.wants,
        priority=None if demand is None else demand.priority,
        share=None if demand is None else demand.share,
        waits_for=waits_for,
    )


def _waits_for_others(shared: SharedSlots, holds: int) -> str:
    if holds < min(shared.entitled, shared.demand.wants):
        return "slots that others give back when their epochs end"
    if shared.entitled < shared.demand.wants:
        return "a larger part of the cluster, which others have by priority and share"
    return ""
