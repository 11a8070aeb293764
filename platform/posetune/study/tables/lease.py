"""Lets one driver at a time run a sweep: it renews a lease, which others take when it is dead.

A lease is dead when it has expired, or at once when its holder was a process of this host that is
gone (the start time of the pid is compared too, since pids are used again). Every event that a
driver appends checks in the same transaction that the lease is still its own, so a driver that was
asleep and has been replaced can write nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import OperationalError

from posetune.api import BadInputError
from posetune.study.tables import schema
from posetune.study.tables.database import Database

__all__ = ["LEASE_S", "Lease", "LeaseLostError", "ask_to_stop", "is_live"]

LEASE_S = 10.0


class LeaseLostError(RuntimeError):
    """Another driver has taken the sweep over; this one must stop without writing."""


class _HeldError(BadInputError):
    """A live driver holds the lease."""

    def __init__(self, message: str, *, is_here: bool, expires: float) -> None:
        super().__init__(message)
        self.is_here, self.expires = is_here, expires


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

    def release(self) -> None:
        """Give the lease back."""
        self._released.set()
        self._thread.join(timeout=1.0)
        table = schema.lease
        ours = (table.c.sweep_id == self._sweep_id) & (table.c.holder == self.holder)
        self._database.write(lambda connection: connection.execute(delete(table).where(ours)))

    def _take_or_wait(self, name: str) -> None:
        until: float | None = None
        while True:
            try:
                self._database.write(lambda connection: self._take(connection, name))
            except _HeldError as error:
                # A head that comes back on another host is told apart by its silence alone.
                until = error.expires if until is None else until
                if error.is_here or time.time() > until:
                    raise
                time.sleep(0.5)
            else:
                return

    def _take(self, connection: Connection, name: str) -> None:
        table = schema.lease
        query = select(table).where(table.c.sweep_id == self._sweep_id).with_for_update()
        row = connection.execute(query).one_or_none()
        values = {
            "holder": self.holder,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "pid_started": _started(os.getpid()),
            "expires": time.time() + LEASE_S,
            "stop_asked": None,
        }
        if row is None:
            connection.execute(insert(table).values(sweep_id=self._sweep_id, **values))
        elif is_live(row.host, row.pid, row.pid_started, row.expires):
            raise _HeldError(
                f"sweep {name}: is being driven by process {row.pid} on {row.host}; wait for it, "
                f"or stop that process (its lease is renewed every {LEASE_S / 3:.0f} s)",
                is_here=row.host == socket.gethostname(),
                expires=row.expires,
            )
        else:
            connection.execute(
                update(table).where(table.c.sweep_id == self._sweep_id).values(**values)
            )

    def _renew(self) -> None:
        table = schema.lease
        ours = (table.c.sweep_id == self._sweep_id) & (table.c.holder == self.holder)

        def renew(connection: Connection) -> None:
            expires = time.time() + LEASE_S
            connection.execute(update(table).where(ours).values(expires=expires))
            asked = connection.execute(select(table.c.stop_asked).where(ours)).scalar()
            self.stop_asked = asked or ""

        while not self._released.wait(LEASE_S / 3):
            # A lease that could not be renewed may expire; then the next event is refused.
            with contextlib.suppress(OperationalError):
                self._database.write(renew)


def ask_to_stop(database: Database, sweep_id: int, *, who: str) -> bool:
    """Ask a sweep's driver to stop, wherever it runs; return whether it has a live one."""
    table = schema.lease
    of_sweep = table.c.sweep_id == sweep_id

    def ask(connection: Connection) -> bool:
        row = connection.execute(select(table).where(of_sweep).with_for_update()).one_or_none()
        if row is None or not is_live(row.host, row.pid, row.pid_started, row.expires):
            return False
        connection.execute(update(table).where(of_sweep).values(stop_asked=who))
        return True

    return database.write(ask)


def is_live(host: str, pid: int, pid_started: str, expires: float) -> bool:
    """Whether the holder that a lease names may still be at work."""
    if host == socket.gethostname() and pid_started and _started(pid) != pid_started:
        return False
    return expires > time.time()


def _started(pid: int) -> str:
    """Return when a process of this host started in clock ticks since boot; empty if gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
