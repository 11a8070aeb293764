"""Writes and reads the events of a sweep, and what else the study keeps of it.

Plain functions over a connection. They read the tables of today and, through `old_tables` and
`old_events`, those of the version before, which they leave as they are; events are written to the
tables of today only.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping, delete, insert, select

from posetune.spec.sweep import SweepSpec
from posetune.study.events import Event, Reported
from posetune.study.old import old_events, old_tables
from posetune.study.state import SweepState
from posetune.study.tables import schema
from posetune.study.tables.event_rows import decode, encode

__all__ = [
    "Run",
    "append_event",
    "find_sweep",
    "fold_sweep",
    "has_event",
    "read_events",
    "read_metrics",
    "read_runs",
    "read_tracked",
    "record_tracked",
]

CHUNK = 50
"""Rows that are fetched at a time, so that a long sweep is read without holding all of them."""


class Run(NamedTuple):
    """The MLflow run that shows a trial."""

    trial: int | None
    """Number of the trial; None for the sweep's own run."""
    tracking: str
    """The address of the tracking store."""
    run_id: str


_EVENT = [schema.event.c[name] for name in ("kind", "at", "trial", "epoch", "data")]
"""Columns that `decode` takes; the metrics are left out, because a fold has no need of them."""

_APPEND = insert(schema.event)
"""Statement that appends an event; building it takes as long as executing it."""


def append_event(connection: Connection, sweep_id: int, seq: int, event: Event) -> None:
    """Append an event to its sweep's order, at the place after those that its writer knows.

    Args:
        connection: in the transaction that checks the lease.
        sweep_id: the sweep.
        seq: the place, from 1.
        event: what happened.

    Raises:
        IntegrityError: there is an event at that place.
    """
    connection.execute(_APPEND, {"sweep_id": sweep_id, "seq": seq, **encode(event)})


def has_event(connection: Connection, sweep_id: int, seq: int, event: Event) -> bool:
    """Whether the event at a place is this one, and the last.

    A transaction is tried again where the database went away in the middle of it; it may have been
    committed all the same.
    """
    table = schema.event
    query = select(table).where(table.c.sweep_id == sweep_id, table.c.seq >= seq)
    there = connection.execute(query.order_by(table.c.seq)).mappings().all()
    return len(there) == 1 and all(there[0][k] == value for k, value in encode(event).items())


def find_sweep(connection: Connection, name: str) -> RowMapping | None:
    """Return the row of what a sweep was started with, or None."""
    query = select(schema.sweep).where(schema.sweep.c.name == name)
    return connection.execute(query).mappings().one_or_none()


def fold_sweep(connection: Connection, sweep: RowMapping) -> SweepState:
    """Return where a sweep stands after all its events.

    Args:
        connection: a consistent view.
        sweep: its row.
    """
    state = SweepState(SweepSpec.model_validate(sweep["spec"]))
    for event in read_events(connection, sweep["id"]):
        state.apply(event)
    return state


def read_events(connection: Connection, sweep_id: int, *, after: int = 0) -> Iterator[Event]:
    """Yield the events of a sweep later than number `after`, in order, without their metrics."""
    if old_tables.is_old(connection):
        events = old_events.read_events(connection, sweep_id)
        yield from events[after:]
        return
    table = schema.event
    query = select(*_EVENT).where(table.c.sweep_id == sweep_id, table.c.seq > after)
    query = query.order_by(table.c.seq)
    for row in connection.execute(query, execution_options={"yield_per": CHUNK}):
        yield decode(*row)


def read_metrics(
    connection: Connection, sweep_id: int, *, number: int, after: int = 0
) -> list[Reported]:
    """Return a trial's reports later than epoch `after`, with their metrics."""
    if old_tables.is_old(connection):
        return old_tables.read_metrics(connection, sweep_id, number=number, after=after)
    table = schema.event
    query = select(*_EVENT, table.c.metrics).where(
        table.c.sweep_id == sweep_id,
        table.c.trial == number,
        table.c.metrics.is_not(None),
        table.c.epoch > after,
    )
    rows = connection.execute(query.order_by(table.c.seq))
    return [_report(*row) for row in rows]


def _report(*row: Any) -> Reported:
    *columns, metrics = row
    event = decode(*columns)
    assert isinstance(event, Reported)  # no other event has metrics
    return dataclasses.replace(event, metrics=metrics)


def read_tracked(connection: Connection, sweep_id: int, tracking: str) -> dict[int | None, str]:
    """Return the run of each trial number, and of the sweep under None, in one tracking store."""
    return {
        run.trial: run.run_id for run in read_runs(connection, sweep_id) if run.tracking == tracking
    }


def read_runs(connection: Connection, sweep_id: int) -> list[Run]:
    """Return the runs that show a sweep and its trials, in the order in which they were made."""
    if old_tables.is_old(connection):
        old = old_tables.read_runs(connection, sweep_id)
        return [Run(row.number, row.tracking, row.run_id) for row in old]
    table = schema.tracked
    query = select(table.c.trial, table.c.tracking, table.c.run_id)
    query = query.where(table.c.sweep_id == sweep_id).order_by(table.c.id)
    return [Run(*row) for row in connection.execute(query)]


def record_tracked(
    connection: Connection, sweep_id: int, *, number: int | None, tracking: str, run_id: str
) -> None:
    """Record which run shows a trial (or the sweep: None) in one tracking store."""
    if old_tables.is_old(connection):
        old_tables.record_run(connection, sweep_id, number=number, tracking=tracking, run_id=run_id)
        return
    table = schema.tracked
    same = table.c.trial.is_(None) if number is None else table.c.trial == number
    connection.execute(
        delete(table).where(table.c.sweep_id == sweep_id, table.c.tracking == tracking, same)
    )
    row = {"sweep_id": sweep_id, "trial": number, "tracking": tracking, "run_id": run_id}
    connection.execute(insert(table).values(at=time.time(), **row))
