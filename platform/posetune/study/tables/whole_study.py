"""Takes the rows of a whole study, and puts such rows into an empty one.

Who drives a sweep at this moment, and what its driver holds of the cluster, is left out: nobody
drives the copy. So is how far a tracking server was: the copy may have another one. The database
may have tables of MLflow too; they are not the study's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, Table, select

from posetune.api import BadInputError
from posetune.study.tables import journal, schema
from posetune.study.tables.database import Database
from posetune.study.tables.table_rows import (
    Row,
    digest_lines,
    line_of,
    put_rows,
    read_lines,
    row_of,
    tables_of,
)

__all__ = ["STUDY_TABLES", "NamedFiles", "check_study", "put_study", "read_study"]

_DEMAND = "demand"
"""Table of `sharing.demands`, made when it is first needed."""
_SHIPPED = "shipped"
"""Table of `tables.shipped`, made when it is first needed."""
_NOTIFY = {"notify_cursor", "notify_message"}
"""Tables of `notifications.outbox`, made when they are first needed."""
STUDY_TABLES = frozenset({*schema.metadata.tables, _DEMAND, _SHIPPED, *_NOTIFY})
"""Names of all tables that a study may have."""
_LEFT_OUT = {schema.about.name, schema.lease.name, _DEMAND, _SHIPPED}


@dataclass
class NamedFiles:
    """Says what a study names in storage."""

    checkpoints: dict[str, str] = field(default_factory=dict)
    """The digest of each checkpoint that it keeps, by its folder."""
    stages: set[tuple[str, str]] = field(default_factory=set)
    """The shared products that trials have used: the stage's name, and the key."""
    trials: list[tuple[str, int]] = field(default_factory=list)
    """The sweep and the number of each trial, which may have a log."""
    sweeps: int = 0


def read_study(database: Database, file: Path) -> NamedFiles:
    """Write the rows of a study, as they are at one moment, and return what they name in storage.

    Args:
        database: the study, which a driver may be writing to.
        file: where to write, a line a row.
    """
    with database.reading() as connection, file.open("w", encoding="utf-8") as lines:
        lines.writelines(read_lines(connection, _tables(connection)))
        return _named(connection)


def _named(connection: Connection) -> NamedFiles:
    named = NamedFiles()
    for row in connection.execute(select(schema.sweep).order_by(schema.sweep.c.id)).mappings():
        named.sweeps += 1
        for trial in journal.fold_sweep(connection, row).trials:
            named.trials.append((row["name"], trial.number))
            named.checkpoints |= {saved.folder: saved.digest for saved in trial.checkpoints}
            named.stages |= set(trial.stages.items())
    return named


def check_study(database: Database, file: Path, *, old: str, new: str) -> None:
    """Make sure that `put_study` would not find other rows, without writing anything.

    Raises:
        BadInputError: the study has others.
    """
    wanted = digest_lines(line_of(*row) for row in _rows(file, old, new))
    with database.reading() as connection:
        _has_rows(database, connection, wanted)


def put_study(database: Database, file: Path, *, old: str, new: str) -> None:
    """Put rows into a study that is empty, or that has just these; all of them or none.

    Args:
        database: the study.
        file: the rows, as `read_study` writes them.
        old: address of the MLflow that shows the sweeps, as the rows have it.
        new: its address now.

    Raises:
        BadInputError: the study has others.
        ValueError: the rows do not fit into its tables.
    """
    wanted = digest_lines(line_of(*row) for row in _rows(file, old, new))

    def put(connection: Connection) -> None:
        if _has_rows(database, connection, wanted):
            return  # a transaction that was tried again, or a command that was given again
        put_rows(connection, _tables(connection), _rows(file, old, new))

    database.write(put)


def _tables(connection: Connection) -> list[Table]:
    return [t for t in tables_of(connection, but=_LEFT_OUT) if t.name in STUDY_TABLES]


def _rows(file: Path, old: str, new: str) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a file but for those that older backups have and no copy wants."""
    with file.open(encoding="utf-8") as lines:
        for table, row in map(row_of, lines):
            if table in _LEFT_OUT:
                continue
            is_shown_there = table == schema.tracked.name and row["tracking"] == old
            yield table, {**row, "tracking": new} if is_shown_there else row


def _has_rows(database: Database, connection: Connection, wanted: int) -> bool:
    """Whether a study has the rows of this digest already; False where it has none.

    Raises:
        BadInputError: it has others.
    """
    tables = _tables(connection)
    if digest_lines(read_lines(connection, tables)) == wanted:
        return True
    if any(True for _ in read_lines(connection, tables)):
        raise BadInputError(
            f"study database {database.address}: has sweeps already; restore into an empty "
            "one (another --home, or POSETUNE_DATABASE)"
        )
    return False
