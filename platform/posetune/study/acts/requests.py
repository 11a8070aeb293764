"""Keeps the requests of people: rows that anybody may write, and that a driver takes up."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field

from sqlalchemy import Connection, insert, select, update

from posetune.study.acts.act import Act, act_of
from posetune.study.tables import schema

__all__ = [
    "Request",
    "has_requests",
    "mark_taken_up",
    "read_pending",
    "read_request",
    "refuse",
    "write_request",
]


@dataclass(frozen=True)
class Request:
    """What somebody wants of a sweep."""

    act: Act
    by: str
    """Who, as person@host."""
    at: float = field(default_factory=time.time)
    """Seconds since the epoch."""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Its name; who writes it twice writes one."""
    seq: int | None = None
    """Number of the event that it became; None while it waits, and where it was refused."""
    refused: str = ""
    """Why it became none."""

    @property
    def is_waiting(self) -> bool:
        """Whether no driver has taken it up yet."""
        return self.seq is None and not self.refused


_ROW = [schema.request.c[name] for name in ("act", "person", "at", "token", "seq", "refused")]


def _request(row: tuple[object, ...]) -> Request:
    act, by, at, token, seq, refused = row
    return Request(act_of(dict(act)), str(by), float(at), str(token), seq, refused or "")  # type: ignore[call-overload,arg-type]


def has_requests(connection: Connection) -> bool:
    """Whether the study has a table of requests: an older one has none until it is upgraded."""
    return connection.execute(select(schema.about.c.version)).scalar() == schema.VERSION


def write_request(connection: Connection, sweep_id: int, request: Request) -> None:
    """Write a request, or leave it as it is where it is there already."""
    table = schema.request
    there = select(table.c.id).where(table.c.token == request.token)
    if connection.execute(there).one_or_none() is None:
        values = {"at": request.at, "person": request.by, "token": request.token}
        act = request.act.model_dump(mode="json")
        connection.execute(insert(table).values(sweep_id=sweep_id, act=act, **values))


def read_pending(connection: Connection, sweep_id: int) -> list[Request]:
    """Return the requests that wait, in the order in which they are taken up."""
    if not has_requests(connection):
        return []
    table = schema.request
    query = select(*_ROW).where(
        table.c.sweep_id == sweep_id, table.c.seq.is_(None), table.c.refused.is_(None)
    )
    return [_request(tuple(row)) for row in connection.execute(query.order_by(table.c.id))]


def read_request(connection: Connection, token: str) -> Request | None:
    """Return a request by its name; None where it is not there."""
    query = select(*_ROW).where(schema.request.c.token == token)
    row = connection.execute(query).one_or_none()
    return None if row is None else _request(tuple(row))


def mark_taken_up(connection: Connection, token: str, seq: int) -> None:
    """Say which event a request became, in the transaction that appends the event."""
    table = schema.request
    connection.execute(update(table).where(table.c.token == token).values(seq=seq))


def refuse(connection: Connection, token: str, why: str) -> None:
    """Say why a request becomes no event."""
    table = schema.request
    connection.execute(update(table).where(table.c.token == token).values(refused=why))
