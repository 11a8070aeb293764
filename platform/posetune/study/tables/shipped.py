"""Keeps up to which of its events a tracking server shows each sweep, so that its lag can be read.

A table of the study that is made when the first sweep is shipped, so neither reading nor an older
posetune is concerned. Nothing depends on it: what a server holds, a shipper learns from the server.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    delete,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, ProgrammingError

from posetune.study.old import old_tables
from posetune.study.tables import schema
from posetune.study.tables.database import Database

__all__ = ["ShippingLag", "begin_shipping", "forget", "note_shipped", "read_lags"]

_metadata = MetaData()

_shipped = Table(
    "shipped",
    _metadata,
    Column("sweep_id", Integer, primary_key=True, autoincrement=False),
    Column("tracking", Text, nullable=False),  # the server, without its password
    Column("seq", Integer, nullable=False),  # the last event that it shows; 0 before the first pass
)


@dataclass(frozen=True)
class ShippingLag:
    """Says how far a tracking server is behind a sweep."""

    events: int
    """Number of events that it does not show yet."""
    since: float | None
    """Time of the oldest of them, in seconds since the epoch; None where there is none."""


def begin_shipping(database: Database, sweep_id: int, tracking: str) -> None:
    """Note that a sweep is going to be shipped, so that a server that never answers is seen.

    Args:
        database: the study.
        sweep_id: the sweep.
        tracking: address of the server, without its password.
    """
    _note(database, sweep_id, tracking, 0)


def note_shipped(database: Database, sweep_id: int, tracking: str, seq: int) -> None:
    """Note that a server shows a sweep up to one of its events.

    Args:
        database: the study.
        sweep_id: the sweep.
        tracking: address of the server, without its password.
        seq: number of the event, from 1.
    """
    _note(database, sweep_id, tracking, seq)


def _note(database: Database, sweep_id: int, tracking: str, seq: int) -> None:
    if not database.may_be_written:
        return
    with database.reading() as connection:
        if old_tables.is_old(connection):  # its first driver upgrades it, and nobody else
            return
        is_there = inspect(connection).has_table(_shipped.name)

    def note(connection: Connection) -> None:
        ours = _shipped.c.sweep_id == sweep_id
        row = connection.execute(select(_shipped).where(ours)).one_or_none()
        values = {"tracking": tracking, "seq": seq}
        if row is None:
            connection.execute(insert(_shipped).values(sweep_id=sweep_id, **values))
        elif row.tracking != tracking or row.seq < seq:
            connection.execute(update(_shipped).where(ours).values(**values))

    # Shipping goes on where this user may make no table, or another process is faster by a moment.
    with contextlib.suppress(IntegrityError, ProgrammingError):
        if not is_there:
            database.make_tables(_metadata)
        database.write(note)


def read_lags(connection: Connection) -> dict[str, ShippingLag]:
    """Return how far tracking is behind each sweep that was ever shipped, by the sweep's name.

    Args:
        connection: a consistent view.
    """
    if not inspect(connection).has_table(_shipped.name):
        return {}
    sweep, event = schema.sweep, schema.event
    query = (
        select(sweep.c.name, func.count(event.c.seq), func.min(event.c.at))
        .join(_shipped, _shipped.c.sweep_id == sweep.c.id)
        .outerjoin(event, (event.c.sweep_id == sweep.c.id) & (event.c.seq > _shipped.c.seq))
        .group_by(sweep.c.id, sweep.c.name)
    )
    return {name: ShippingLag(*lag) for name, *lag in connection.execute(query)}


def forget(connection: Connection, sweep_id: int) -> None:
    """Delete what was noted of a sweep, whose id the study may give to another one."""
    if inspect(connection).has_table(_shipped.name):
        connection.execute(delete(_shipped).where(_shipped.c.sweep_id == sweep_id))
