"""Tells of what no event of a sweep says: a promotion, a rollback.

The message is kept before the act, and confirmed after it. So a command that is killed between the
two loses no message; the message then says that the command did not live to see the end.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from posetune.api import BadInputError
from posetune.home import Home
from posetune.notifications import outbox
from posetune.notifications.delivery import merged
from posetune.notifications.messages import Message
from posetune.notifications.notifier import sending
from posetune.spec.home_file import read_home_destinations
from posetune.spec.notify import Destination
from posetune.study.tables import journal
from posetune.study.tables.database import Database, open_database

__all__ = ["announcing"]


@contextmanager
def announcing(
    home: Home, event: str, text: str, *, sweep: str = "", data: Mapping[str, Any]
) -> Iterator[None]:
    """Tell of an act that a block does; nobody is told where the block raises.

    Args:
        home: where study and destinations are.
        event: one of `spec.notify.EVENTS`.
        text: what happens in the block, as a line.
        sweep: the sweep that it is about, whose destinations are told too.
        data: what happens, as values; it must tell the act from others at the same time.
    """
    try:
        database = open_database(home.database, create=False)
    except BadInputError:  # a registry without a study: there is nowhere to keep a message
        yield
        return
    now = time.time()
    act = "/".join(str(value) for value in data.values())
    message = Message(f"{act}/{event}/{now:.3f}", event, now, sweep, text, dict(data))
    sweep_id, destinations = _destinations(database, home, sweep)
    if not any(destination.wants(event) for destination in destinations):
        yield
        return
    outbox.make_tables(database)

    def keep(connection: Connection) -> None:
        outbox.put(connection, sweep_id, [message], destinations, is_begun=True)

    database.write(keep)
    try:
        yield
    except Exception:
        database.write(lambda connection: outbox.drop(connection, message.id))
        raise
    with contextlib.suppress(SQLAlchemyError):  # the act is done; its message says less then
        database.write(lambda connection: outbox.confirm(connection, message.id))
    with sending(database, home):
        pass  # one pass; what a server that is away does not take waits in the study


def _destinations(
    database: Database, home: Home, sweep: str
) -> tuple[int | None, tuple[Destination, ...]]:
    """Return the id of a sweep, and who may want to know of it."""
    of_home = read_home_destinations(home.folder)
    with database.reading() as connection:
        row = journal.find_sweep(connection, sweep) if sweep else None
        if row is None:
            return None, of_home
        known = outbox.cursors(connection) if outbox.has_tables(connection) else []
    own = next((c.destinations for c in known if c.sweep_id == row["id"]), ())
    return int(row["id"]), merged(own, of_home)
