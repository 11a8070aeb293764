"""Keeps each message for each destination until it is sent, and how far each sweep was read.

Two tables of the study, made when the first sweep with a destination begins; a study without any
has none of them, so neither reading nor an older posetune is concerned. `cursor` says up to which
event the messages of a sweep were put into `message`; both change in one transaction. So a process
may be killed at any time: what was not put is put by the next one, what was not marked as sent is
sent again, with the same id.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    delete,
    func,
    insert,
    inspect,
    select,
    update,
)

from posetune.notifications.messages import Message
from posetune.spec.notify import Destination, parse_destinations
from posetune.study.tables.database import Database
from posetune.study.tables.lease import is_gone, this_process
from posetune.study.tables.whole_sweep import last_seq

__all__ = [
    "Cursor",
    "Waiting",
    "WaitingCount",
    "confirm",
    "count_waiting",
    "cursors",
    "drop",
    "forget",
    "has_tables",
    "last_seq",
    "make_tables",
    "mark_failed",
    "mark_sent",
    "move_cursor",
    "put",
    "set_destinations",
    "waiting",
]

BEGUN_S = 600.0
"""Longest time for which a command may take between a message and what the message tells of."""

_metadata = MetaData()

_cursor = Table(
    "notify_cursor",
    _metadata,
    Column("sweep_id", Integer, primary_key=True, autoincrement=False),
    Column("seq", Integer, nullable=False),  # the last event whose messages were put
    # Those of the sweep file and of the home's file when its driver started, without secrets.
    Column("destinations", JSON, nullable=False),
    Column("of_home", JSON, nullable=False),
)

_message = Table(
    "notify_message",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String(255), nullable=False),  # Message.id
    Column("destination", Text, nullable=False),  # Destination.key
    Column("sweep_id", Integer, index=True),  # NULL where it is about no sweep
    Column("body", JSON, nullable=False),  # Message.as_json()
    Column("sent", Float),  # when; NULL while it waits
    Column("error", Text),  # why it could not be sent the last time
    # Which process is about to do what the message tells of; NULL once it is done.
    Column("begun", JSON(none_as_null=True)),
    UniqueConstraint("key", "destination"),
)


class Cursor(NamedTuple):
    """How far the events of a sweep were turned into messages, and for whom."""

    sweep_id: int
    seq: int
    destinations: tuple[Destination, ...]
    """Those of its sweep file."""
    of_home: tuple[Destination, ...]
    """Those of the home in which its driver was started."""


class Waiting(NamedTuple):
    """A message that waits for a destination."""

    id: int
    sweep_id: int | None
    destination: str
    message: Message
    error: str


class WaitingCount(NamedTuple):
    """How many messages wait for a destination."""

    number: int
    error: str
    """Why the first of them could not be sent the last time; empty where it was not tried."""
    since: float
    """Time of the oldest of them, in seconds since the epoch."""

    def and_one_of(self, at: float) -> WaitingCount:
        """Return the same with another message, of a time in seconds since the epoch."""
        return WaitingCount(self.number + 1, self.error, min(self.since, at))


def has_tables(connection: Connection) -> bool:
    """Whether the study has the tables of messages."""
    return inspect(connection).has_table(_message.name)


def make_tables(database: Database) -> None:
    """Make the tables of messages where they are missing."""
    database.make_tables(_metadata)


def cursors(connection: Connection) -> list[Cursor]:
    """Return how far each sweep was read that has had a destination."""
    rows = connection.execute(select(_cursor).order_by(_cursor.c.sweep_id))
    return [
        Cursor(
            row.sweep_id,
            row.seq,
            destinations=parse_destinations(row.destinations),
            of_home=parse_destinations(row.of_home),
        )
        for row in rows
    ]


def set_destinations(
    database: Database,
    sweep_id: int,
    destinations: Sequence[Destination],
    of_home: Sequence[Destination],
) -> None:
    """Record the destinations of a sweep from now on.

    A sweep that has had none so far is read from its next event on. What waits for a destination
    that is gone is forgotten.
    """
    dumped = {
        "destinations": [destination.model_dump(mode="json") for destination in destinations],
        "of_home": [destination.model_dump(mode="json") for destination in of_home],
    }
    of_sweep = _cursor.c.sweep_id == sweep_id
    keys = [destination.key for destination in (*destinations, *of_home)]
    gone = (_message.c.sweep_id == sweep_id) & _message.c.destination.not_in(keys)

    def change(connection: Connection) -> None:
        connection.execute(delete(_message).where(gone, _message.c.sent.is_(None)))
        if connection.execute(update(_cursor).where(of_sweep).values(**dumped)).rowcount == 0:
            row = {"sweep_id": sweep_id, "seq": last_seq(connection, sweep_id)}
            connection.execute(insert(_cursor).values(**row, **dumped))

    database.write(change)


def put(
    connection: Connection,
    sweep_id: int | None,
    messages: Iterable[Message],
    destinations: Sequence[Destination],
    *,
    is_begun: bool = False,
) -> None:
    """Keep messages for the destinations that want them, each once.

    Args:
        connection: in a transaction.
        sweep_id: the sweep; None where they are about none.
        messages: the messages.
        destinations: who might want them.
        is_begun: whether this process is still about to do what they tell of; see `confirm`.
    """
    begun = dict(zip(("host", "pid", "started"), this_process(), strict=True)) if is_begun else None
    for message in messages:
        query = select(_message.c.destination).where(_message.c.key == message.id)
        has = set(connection.execute(query).scalars())
        for destination in destinations:
            if destination.wants(message.event) and destination.key not in has:
                row = {"key": message.id, "destination": destination.key, "sweep_id": sweep_id}
                connection.execute(
                    insert(_message).values(**row, body=message.as_json(), begun=begun)
                )


def move_cursor(connection: Connection, sweep_id: int, *, seq: int, to: int) -> bool:
    """Note that the messages up to event `to` were put; False if another process was faster.

    Args:
        connection: in the transaction that puts them.
        sweep_id: the sweep.
        seq: where the cursor was when the events were read.
        to: the last event that was read.
    """
    at = (_cursor.c.sweep_id == sweep_id) & (_cursor.c.seq == seq)
    return connection.execute(update(_cursor).where(at).values(seq=to)).rowcount == 1


def confirm(connection: Connection, key: str) -> None:
    """Note that what a message tells of is done."""
    connection.execute(update(_message).where(_message.c.key == key).values(begun=None))


def drop(connection: Connection, key: str) -> None:
    """Forget a message of what was not done in the end."""
    connection.execute(delete(_message).where(_message.c.key == key, _message.c.sent.is_(None)))


def forget(connection: Connection, sweep_id: int) -> int:
    """Forget a sweep that is deleted; return how many of its messages were still waiting.

    The study may give its id to another sweep, which must not find them.
    """
    if not has_tables(connection):
        return 0
    of_sweep = _message.c.sweep_id == sweep_id
    unsent = select(func.count()).where(of_sweep, _message.c.sent.is_(None))
    waited = int(connection.execute(unsent).scalar_one())
    connection.execute(delete(_message).where(of_sweep))
    connection.execute(delete(_cursor).where(_cursor.c.sweep_id == sweep_id))
    return waited


def waiting(connection: Connection) -> list[Waiting]:
    """Return the messages that wait, oldest first.

    A message of what a process is still about to do is left out while the process may live.
    """
    found = []
    query = select(_message).where(_message.c.sent.is_(None)).order_by(_message.c.id)
    for row in connection.execute(query):
        message = Message.from_json(row.body)
        if row.begun is not None:
            if _is_at_work(row.begun, message):
                continue
            message = _doubtful(message)
        found.append(Waiting(row.id, row.sweep_id, row.destination, message, row.error or ""))
    return found


def _is_at_work(begun: Mapping[str, Any], message: Message) -> bool:
    gone = is_gone(begun["host"], begun["pid"], begun["started"])
    return not gone and time.time() < message.at + BEGUN_S


def _doubtful(message: Message) -> Message:
    text = f"{message.text} (the command was killed: whether it is so, posetune ui shows)"
    return Message.from_json({**message.as_json(), "text": text})


def mark_sent(database: Database, identity: int) -> None:
    """Note that a message has reached its destination."""
    row = _message.c.id == identity
    change = update(_message).where(row).values(sent=time.time(), error=None)
    database.write(lambda connection: connection.execute(change))


def mark_failed(database: Database, identity: int, error: str) -> None:
    """Note why a message could not be sent."""
    change = update(_message).where(_message.c.id == identity).values(error=error)
    database.write(lambda connection: connection.execute(change))


def count_waiting(connection: Connection, sweep_id: int | None = None) -> dict[str, WaitingCount]:
    """Return how many messages wait for each destination, of one sweep or of the whole study."""
    if not has_tables(connection):
        return {}
    query = select(_message.c.destination, _message.c.error, _message.c.body)
    query = query.where(_message.c.sent.is_(None))
    if sweep_id is not None:
        query = query.where(_message.c.sweep_id == sweep_id)
    counts: dict[str, WaitingCount] = {}
    for destination, error, body in connection.execute(query.order_by(_message.c.id)):
        at = float(body["at"])
        before = counts.get(destination, WaitingCount(0, error or "", at))
        counts[destination] = before.and_one_of(at)
    return counts
