"""Moves a study of a version before to the tables of today, in one transaction.

The first driver that continues a sweep of a SQLite study does it, after a copy of the file. A
PostgreSQL study is shared, so `posetune upgrade` does it, when somebody says so. No driver may be
live: one of the version before would write to tables that are gone.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from sqlalchemy import Connection, insert, select, update

from posetune.api import BadInputError
from posetune.storage.whole_files import writing_whole
from posetune.study.old import old_events, old_tables
from posetune.study.tables import schema
from posetune.study.tables.database import Database
from posetune.study.tables.event_rows import encode
from posetune.study.tables.lease import is_live

__all__ = ["needs_upgrade", "refuse_old_tables", "upgrade", "upgrade_before_driving"]


def needs_upgrade(database: Database) -> bool:
    """Whether the study has the tables of a version before."""
    with database.reading() as connection:
        return _version(connection) != schema.VERSION


def refuse_old_tables(database: Database) -> None:
    """Refuse a study whose rows are not where they are today.

    Raises:
        BadInputError: says how they come there.
    """
    if needs_upgrade(database):
        raise BadInputError(
            f"study database {database.address}: has tables of an earlier version; bring it to "
            "those of today first (posetune upgrade)"
        )


def upgrade_before_driving(database: Database) -> None:
    """Upgrade a SQLite study, as the first driver that continues one of its sweeps does.

    Raises:
        BadInputError: a driver is live, or the study is a shared one.
    """
    with database.reading() as connection:
        version = _version(connection)
    if version == schema.VERSION:
        return
    if database.engine.name != "sqlite":
        raise BadInputError(
            f"study database {database.address}: has tables of version {version}; "
            "posetune upgrade brings it to those of today, once every driver of it has stopped"
        )
    upgrade(database)


def upgrade(database: Database) -> Path | None:
    """Move a study to the tables of today; a second call changes nothing.

    Returns:
        The copy of a SQLite file as it was; None for another database, and where nothing was done.

    Raises:
        BadInputError: a driver of one of its sweeps is live.
    """

    def move(connection: Connection) -> Path | None:
        # Who upgrades at the same moment waits here, and then finds nothing to do.
        connection.execute(select(schema.about).with_for_update())
        version = _version(connection)
        if version == schema.VERSION:
            return None
        _refuse_live_drivers(connection)
        copy = _copy(connection, version) if database.engine.name == "sqlite" else None
        schema.metadata.create_all(connection)  # those that are missing
        if version == schema.OLD_VERSION:
            _move(connection)
        connection.execute(update(schema.about).values(version=schema.VERSION))
        return copy

    return database.write(move)


def _version(connection: Connection) -> int:
    return int(connection.execute(select(schema.about.c.version)).scalar_one())


def _refuse_live_drivers(connection: Connection) -> None:
    lease, sweep = schema.lease, schema.sweep
    query = select(sweep.c.name, lease).join(sweep, sweep.c.id == lease.c.sweep_id)
    for row in connection.execute(query.with_for_update()):
        if is_live(connection, row):
            raise BadInputError(
                f"sweep {row.name}: is being driven by process {row.pid} on {row.host}; the study "
                "is upgraded when no driver is live: stop it first (posetune stop "
                f"{row.name})"
            )


def _copy(connection: Connection, version: int) -> Path:
    """Copy the file beside itself; the caller's transaction keeps others from writing to it."""
    file = Path(str(connection.engine.url.database))
    copy = file.with_name(f"{file.name}.v{version}")
    with writing_whole(copy) as partial:
        partial.touch(mode=0o600)  # its owner's alone, as the study
        with (
            contextlib.closing(sqlite3.connect(file)) as source,
            contextlib.closing(sqlite3.connect(partial)) as target,
        ):
            source.backup(target)
    return copy


def _move(connection: Connection) -> None:
    """Write every event into the order of its sweep, and drop the tables where they were."""
    for sweep_id in connection.execute(select(schema.sweep.c.id)).scalars().all():
        events = old_events.read_events(connection, sweep_id, with_metrics=True)
        rows = [
            {"sweep_id": sweep_id, "seq": seq, **encode(event)}
            for seq, event in enumerate(events, start=1)
        ]
        connection.execute(insert(schema.event), rows)
        _move_runs(connection, sweep_id)
    kept = set(schema.metadata.tables)
    gone = [table for table in old_tables.metadata.sorted_tables if table.name not in kept]
    old_tables.metadata.drop_all(connection, tables=gone)


def _move_runs(connection: Connection, sweep_id: int) -> None:
    runs = {
        (number, tracking): (run_id, at)
        for number, tracking, run_id, at in old_tables.read_runs(connection, sweep_id)
    }
    rows = [
        {"sweep_id": sweep_id, "trial": n, "tracking": t, "run_id": run_id, "at": at}
        for (n, t), (run_id, at) in runs.items()
    ]
    if rows:
        connection.execute(insert(schema.tracked), rows)
