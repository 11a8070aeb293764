"""Takes all rows of a sweep out of a study, puts them into one, and deletes them.

They are what the sweep was started with and its events. Which MLflow runs show it, what waits to be
taken up and who drives it belong to one study, and are no part of them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, select

from posetune.spec.sweep import SweepSpec
from posetune.study.events import Event
from posetune.study.state import SweepState
from posetune.study.tables import schema
from posetune.study.tables.event_rows import decode, encode

__all__ = ["SweepRows", "delete_rows", "last_event", "last_seq", "read_rows", "write_rows"]

_SWEEP = [column for column in schema.sweep.c if column.name != "id"]
_EVENT = [column for column in schema.event.c if column.name != "sweep_id"]


@dataclass(frozen=True)
class SweepRows:
    """Holds a sweep as its study keeps it."""

    sweep: dict[str, Any]
    """The columns of its row, but for the id."""
    events: list[dict[str, Any]]
    """The columns of its events, but for the sweep's id, in their order."""

    def fold(self) -> SweepState:
        """Return where the sweep stands."""
        state = SweepState(SweepSpec.model_validate(self.sweep["spec"]))
        for event in self._decoded():
            state.apply(event)
        return state

    def renamed(self, name: str) -> SweepRows:
        """Return the rows of the same sweep under another name, which its checkpoints have too."""
        old, new = f"checkpoints/{self.sweep['name']}/", f"checkpoints/{name}/"

        def moved(folder: str) -> str:
            return new + folder.removeprefix(old) if folder.startswith(old) else folder

        events = copy.deepcopy(self.events)
        for row in events:
            data = row["data"]
            if "checkpoint" in data:
                data["checkpoint"]["folder"] = moved(data["checkpoint"]["folder"])
            if "released" in data:
                data["released"] = [moved(folder) for folder in data["released"]]
        return SweepRows({**self.sweep, "name": name}, events)

    def and_then(self, event: Event) -> SweepRows:
        """Return the rows with another event behind the last one."""
        row = {"seq": len(self.events) + 1, **encode(event)}
        return SweepRows(self.sweep, [*self.events, row])

    def _decoded(self) -> Iterator[Event]:
        for seq, row in enumerate(self.events, start=1):
            if row["seq"] != seq:
                raise ValueError(f"event {seq} is missing")
            data = copy.deepcopy(row["data"])
            yield decode(row["kind"], row["at"], row["trial"], row["epoch"], data)


def read_rows(connection: Connection, sweep: RowMapping) -> SweepRows:
    """Return the rows of a sweep.

    Args:
        connection: a consistent view.
        sweep: its row.
    """
    table = schema.event
    query = select(*_EVENT).where(table.c.sweep_id == sweep["id"]).order_by(table.c.seq)
    events = [dict(row) for row in connection.execute(query).mappings()]
    return SweepRows({column.name: sweep[column.name] for column in _SWEEP}, events)


def write_rows(connection: Connection, rows: SweepRows) -> int:
    """Write a sweep into the study of a transaction, and return its id.

    Raises:
        IntegrityError: there is a sweep of its name.
    """
    key = connection.execute(insert(schema.sweep).values(rows.sweep)).inserted_primary_key
    identity = int(key[0]) if key else 0
    connection.execute(insert(schema.event), [{"sweep_id": identity, **r} for r in rows.events])
    return identity


def delete_rows(connection: Connection, sweep_id: int) -> None:
    """Delete everything that a study holds of one sweep.

    How often a test split was opened stays: it is about the data, and others are judged by it.
    """
    for table in (schema.event, schema.tracked, schema.request, schema.lease):
        connection.execute(delete(table).where(table.c.sweep_id == sweep_id))
    connection.execute(delete(schema.sweep).where(schema.sweep.c.id == sweep_id))


def last_seq(connection: Connection, sweep_id: int) -> int:
    """Return the number of a sweep's last event; 0 where it has none."""
    query = select(func.max(schema.event.c.seq)).where(schema.event.c.sweep_id == sweep_id)
    return connection.execute(query).scalar() or 0


def last_event(
    connection: Connection, sweep_id: int, *, kind: str | None = None
) -> tuple[int, float]:
    """Return the number and the time of a sweep's last event, or of its last one of a kind.

    Both are 0 where it has none.
    """
    table = schema.event
    query = select(table.c.seq, table.c.at).where(table.c.sweep_id == sweep_id)
    if kind is not None:
        query = query.where(table.c.kind == kind)
    row = connection.execute(query.order_by(table.c.seq.desc()).limit(1)).one_or_none()
    return (0, 0.0) if row is None else (int(row.seq), float(row.at))
