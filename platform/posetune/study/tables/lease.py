"""Lets one driver at a time run a sweep: it renews a lease, which others take when it is dead.

A lease is dead when it has expired, or at once when its holder was a process of this host that is
gone (the start time of the pid is compared too, since pids are used again). When it expires is told
by the database's clock. A file has none, and the clocks of two hosts differ, or somebody sets one:
the lease in a file of a process that may live is taken only after it was seen to stand still for as
long as it lasts.

Every event that a driver appends checks in the same transaction that the lease is still its own, so
a driver that was asleep and has been replaced can write nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import OperationalError

from posetune.api import BadInputError
from posetune.study.tables import schema
from posetune.study.tables.database import Database

__all__ = [
    "LEASE_S",
    "Lease",
    "LeaseLostError",
    "ask_to_stop",
    "is_gone",
    "is_live",
    "this_process",
]

LEASE_S = 10.0


class LeaseLostError(RuntimeError):
    """Another driver has taken the sweep over; this one must stop without writing."""


class _HeldError(BadInputError):
    """Another driver holds the lease, and is live (`is_live`) or may be."""

    def __init__(self, message: str, *, is_live: bool, beat: tuple[str, float]) -> None:
        super().__init__(message)
        self.is_live, self.beat = is_live, beat


class Lease:
    """The right to append a sweep's events; renewed by a thread until released."""

    def __init__(self, database: Database, sweep_id: int, name: str) -> None:
        """Take the lease; that of a holder on another host is waited for, in case it is dead.

        Raises:
            BadInputError: a live driver holds it.
        """
        self.holder = uuid.uuid4().hex
        self.stop_asked = ""
        """Who wants the driver to stop; read whenever the lease is renewed."""
        self.has_company = False
        """Whether another sweep of the study has a driver; read when the lease is taken, and
        whenever it is renewed."""
        self._database = database
        self._sweep_id = sweep_id
        query = select(schema.lease.c.holder).where(schema.lease.c.sweep_id == sweep_id)
        self._holder_query = query.with_for_update()
        self._released = threading.Event()
        self._take_or_wait(name)
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self, connection: Connection) -> None:
        """Raise `LeaseLostError` unless the lease is still ours; call it in every transaction."""
        if connection.execute(self._holder_query).scalar() != self.holder:
            raise LeaseLostError("another driver has taken this sweep over")

    def renew(self) -> None:
        """Renew the lease; the thread does so all the time."""
        self._database.write(self._renew_in)

    def release(self) -> None:
        """Give the lease back."""
        self._released.set()
        self._thread.join(timeout=1.0)
        table = schema.lease
        ours = (table.c.sweep_id == self._sweep_id) & (table.c.holder == self.holder)
        self._database.write(lambda connection: connection.execute(delete(table).where(ours)))

    def _take_or_wait(self, name: str) -> None:
        seen: tuple[str, float] | None = None
        still_since = 0.0
        while True:
            is_still = seen is not None and time.monotonic() - still_since > LEASE_S
            try:
                dead = seen if is_still else None
                self._database.write(partial(self._take, name=name, dead=dead))
            except _HeldError as error:
                # A head that comes back on another host is told apart by its silence alone.
                if error.is_live or (seen is not None and error.beat != seen):
                    raise
                if seen is None:
                    seen, still_since = error.beat, time.monotonic()
                time.sleep(min(0.5, LEASE_S / 10))
            else:
                return

    def _take(self, connection: Connection, *, name: str, dead: tuple[str, float] | None) -> None:
        """Take the lease in a transaction.

        Args:
            connection: in the transaction.
            name: the sweep's.
            dead: holder and expiry of a lease that was seen to stand still for its whole time.

        Raises:
            _HeldError: another driver holds it, and may be live.
        """
        table = schema.lease
        query = select(table).where(table.c.sweep_id == self._sweep_id).with_for_update()
        row = connection.execute(query).one_or_none()
        values = {
            "holder": self.holder,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "pid_started": _started(os.getpid()),
            "expires": _now(connection) + LEASE_S,
            "stop_asked": None,
        }
        self._look_for_others(connection)
        if row is None:
            connection.execute(insert(table).values(sweep_id=self._sweep_id, **values))
            return
        beat = (row.holder, row.expires)
        is_here = row.host == socket.gethostname()
        is_silent = not row.expires > _now(connection)
        is_sure = connection.engine.name != "sqlite"
        is_dead = (
            is_gone(row.host, row.pid, row.pid_started) or (is_silent and is_sure) or beat == dead
        )
        if not is_dead:
            raise _HeldError(
                f"sweep {name}: is being driven by process {row.pid} on {row.host}; wait for it, "
                f"or stop that process (its lease is renewed every {LEASE_S / 3:.0f} s)",
                is_live=is_here and not is_silent,
                beat=beat,
            )
        connection.execute(update(table).where(table.c.sweep_id == self._sweep_id).values(**values))

    def _renew(self) -> None:
        while not self._released.wait(LEASE_S / 3):
            # A lease that could not be renewed may expire; then the next event is refused.
            with contextlib.suppress(OperationalError):
                self.renew()

    def _renew_in(self, connection: Connection) -> None:
        table = schema.lease
        ours = (table.c.sweep_id == self._sweep_id) & (table.c.holder == self.holder)
        expires = _now(connection) + LEASE_S
        connection.execute(update(table).where(ours).values(expires=expires))
        asked = connection.execute(select(table.c.stop_asked).where(ours)).scalar()
        self.stop_asked = asked or ""
        self._look_for_others(connection)

    def _look_for_others(self, connection: Connection) -> None:
        table = schema.lease
        others = (table.c.sweep_id != self._sweep_id) & (table.c.expires > _now(connection))
        query = select(table.c.sweep_id).where(others).limit(1)
        self.has_company = connection.execute(query).first() is not None


def ask_to_stop(database: Database, sweep_id: int, *, who: str) -> bool:
    """Ask a sweep's driver to stop, wherever it runs; return whether it has a live one."""
    table = schema.lease
    of_sweep = table.c.sweep_id == sweep_id

    def ask(connection: Connection) -> bool:
        row = connection.execute(select(table).where(of_sweep).with_for_update()).one_or_none()
        if row is None or not is_live(connection, row):
            return False
        connection.execute(update(table).where(of_sweep).values(stop_asked=who))
        return True

    return database.write(ask)


def is_live(connection: Connection, row: Row[Any]) -> bool:
    """Whether the holder that a row of the leases names may still be at work."""
    return not is_gone(row.host, row.pid, row.pid_started) and bool(row.expires > _now(connection))


def is_gone(host: str, pid: int, started: str) -> bool:
    """Whether a process, told by `this_process`, was one of this host and has ended."""
    if host != socket.gethostname() or not started:
        return False
    return _started(pid) != started


def _now(connection: Connection) -> float:
    """Return the time by the database's clock, in seconds since the epoch; a file has ours."""
    if connection.engine.name == "sqlite":
        return time.time()
    query = "SELECT extract(epoch FROM clock_timestamp())"
    return float(connection.exec_driver_sql(query).scalar_one())


def this_process() -> tuple[str, int, str]:
    """Return host, pid and start of this process, as `is_gone` takes them."""
    return socket.gethostname(), os.getpid(), _started(os.getpid())


def _started(pid: int) -> str:
    """Return when a process of this host started in clock ticks since boot; empty if gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
