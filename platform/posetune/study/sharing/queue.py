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

__all__ = ["QueueEntry", "read_queue"]


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


def read_queue(database: Database) -> list[QueueEntry]:
    """Return the sweeps that a driver is at work on: a higher priority first, then by their age."""
    with database.reading() as connection:
        found = read_demands(connection)
        entitled = _entitled(found)
        demands = {one.demand.sweep: one for one in found if one.demand.sweep in entitled}
        entries = [
            _entry(connection, row, demands.get(row["name"]), entitled.get(row["name"]))
            for row in _driven(connection)
        ]
    return sorted(entries, key=lambda entry: -(entry.priority or 0))


def _entitled(found: Sequence[LiveDemand]) -> dict[str, int]:
    """Return what the sweeps are entitled to that share a cluster with another one."""
    by_cluster: dict[str, list[Demand]] = {}
    for one in found:
        by_cluster.setdefault(one.cluster, []).append(one.demand)
    entitled: dict[str, int] = {}
    for demands in by_cluster.values():
        if len(demands) > 1:
            entitled |= entitlements(demands)
    return entitled


def _driven(connection: Connection) -> list[RowMapping]:
    """Return the rows of the sweeps that a living driver is at work on, oldest first."""
    leases = connection.execute(select(schema.lease)).all()
    live = [lease.sweep_id for lease in leases if is_live(connection, lease)]
    query = select(schema.sweep).where(schema.sweep.c.id.in_(live)).order_by(schema.sweep.c.id)
    return list(connection.execute(query).mappings())


def _entry(
    connection: Connection, row: RowMapping, live: LiveDemand | None, entitled: int | None
) -> QueueEntry:
    state = journal.fold_sweep(connection, row)
    resources = state.spec.resources
    holds = sum(state.trials[n].holding.since is not None for n in state.ledger.running)
    demand = None if live is None else live.demand
    waits_for = f"held by {state.held_by}" if state.held_by else state.waits_for_room
    if demand is not None and entitled is not None and holds < min(entitled, demand.wants):
        waits_for = waits_for or "slots that others give back when their epochs end"
    if demand is not None and entitled is not None and entitled < demand.wants and not waits_for:
        waits_for = "a larger part of the cluster, which others have by priority and share"
    return QueueEntry(
        sweep=row["name"],
        owner=state.owner,
        cluster="" if live is None else live.cluster,
        holds=holds,
        cpu=resources.cpu,
        gpu=resources.gpu,
        open=len(state.waiting) + len(state.paused) + state.most_trials - len(state.trials),
        entitled=entitled,
        wants=None if demand is None else demand.wants,
        priority=None if demand is None else demand.priority,
        share=None if demand is None else demand.share,
        waits_for=waits_for,
    )
