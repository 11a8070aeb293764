"""Keeps what the driver of each sweep holds and wants of its cluster, for the other drivers.

A table of the study that is made when two sweeps are driven at the same time for the first time,
so neither reading nor an older posetune is concerned. A row counts as long as its driver has the
lease of its sweep: the lease's renewal is the sign of life.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    insert,
    inspect,
    select,
    update,
)

from posetune.study.sharing.entitlements import Demand
from posetune.study.tables import schema
from posetune.study.tables.database import Database
from posetune.study.tables.lease import is_live

__all__ = ["LiveDemand", "forget", "make_table", "publish", "read_demands"]

_metadata = MetaData()

_demand = Table(
    "demand",
    _metadata,
    Column("sweep_id", Integer, primary_key=True, autoincrement=False),
    Column("holder", String(64), nullable=False),  # lease.holder of the driver that wrote it
    Column("cluster", String(64), nullable=False),  # tells one Ray cluster from another
    Column("fits", Integer, nullable=False),
    Column("holds", Integer, nullable=False),
    Column("wants", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("share", Float, nullable=False),
)

_FIELDS = ("fits", "holds", "wants", "priority", "share")


@dataclass(frozen=True)
class LiveDemand:
    """Says what a living driver has written down, and for which cluster."""

    cluster: str
    demand: Demand


def make_table(database: Database) -> None:
    """Make the table where there is none."""
    database.make_tables(_metadata)


def publish(
    connection: Connection, sweep_id: int, demand: Demand, *, holder: str, cluster: str
) -> None:
    """Write down what a sweep holds and wants, in a transaction that has checked its lease."""
    values: dict[str, Any] = {name: getattr(demand, name) for name in _FIELDS}
    values |= {"holder": holder, "cluster": cluster}
    ours = _demand.c.sweep_id == sweep_id
    if connection.execute(update(_demand).where(ours).values(**values)).rowcount == 0:
        connection.execute(insert(_demand).values(sweep_id=sweep_id, **values))


def read_demands(connection: Connection) -> list[LiveDemand]:
    """Return what living drivers have written down, the sweep that was started first first."""
    if not inspect(connection).has_table(_demand.name):
        return []
    lease, sweep = schema.lease, schema.sweep
    query = (
        select(_demand, sweep.c.name, lease.c.host, lease.c.pid, lease.c.pid_started)
        .add_columns(lease.c.expires)
        .join(
            lease, (lease.c.sweep_id == _demand.c.sweep_id) & (lease.c.holder == _demand.c.holder)
        )
        .join(sweep, sweep.c.id == _demand.c.sweep_id)
        .order_by(_demand.c.sweep_id)
    )
    return [
        LiveDemand(row.cluster, Demand(row.name, **{name: getattr(row, name) for name in _FIELDS}))
        for row in connection.execute(query)
        if is_live(connection, row)
    ]


def forget(connection: Connection, sweep_id: int) -> None:
    """Delete what was written down of a sweep."""
    if inspect(connection).has_table(_demand.name):
        connection.execute(delete(_demand).where(_demand.c.sweep_id == sweep_id))
