"""Reads all rows of an MLflow database, and puts such rows into an empty one.

MLflow's interface gives neither all that a store holds nor ids of its own choice, so this goes to
the database itself. MLflow writes the absolute address of each artefact into its rows: where the
artefacts lie elsewhere afterwards, the rows are put right. A database may have a study too; its
tables are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow.store.db.utils import _get_latest_schema_revision
from sqlalchemy import Connection, Engine, Table, create_engine, inspect, make_url, text

from posetune.api import BadInputError
from posetune.home import Home
from posetune.study.tables.table_rows import (
    Row,
    digest_lines,
    empty_tables,
    line_of,
    put_rows,
    read_lines,
    row_of,
    tables_of,
)
from posetune.study.tables.whole_study import STUDY_TABLES
from posetune.tracking.server.connection import (
    connect,
    is_server,
    mlflow_faults_explained,
    public_address,
)
from posetune.tracking.server.moved_home import ADDRESSES

__all__ = ["check_store", "has_store", "put_store", "read_migration", "read_store"]

_MIGRATION = "alembic_version"
"""Table that says which migrations a store has."""
_FRESH = {"experiments", "workspaces"}
"""Tables in which a new store has a row each, by the name Default."""


def has_store(home: Home) -> bool:
    """Whether there is an MLflow database whose rows can be read.

    Raises:
        BadInputError: MLflow is a server, whose rows are in a database that we do not know.
    """
    if is_server(home):
        raise BadInputError(
            f"MLflow at {public_address(home.tracking)}: is a server, and its rows are in its "
            "database; name that one for this command (MLFLOW_TRACKING_URI=postgresql://...) and "
            "the folder of its files (--artifacts), or give --no-tracking"
        )
    url = make_url(home.tracking)
    return url.get_backend_name() != "sqlite" or Path(url.database or "").exists()


def read_migration(home: Home) -> str:
    """Return which tables the store has, by MLflow's own name for them; makes a missing store."""
    with mlflow_faults_explained(home):
        connect(home)
        with _engine(home) as engine, engine.connect() as connection:
            return str(connection.execute(text(f"SELECT version_num FROM {_MIGRATION}")).scalar())


def read_store(home: Home) -> Iterator[str]:
    """Yield the rows of the store, a line each, as they are at one moment."""
    with mlflow_faults_explained(home), _engine(home) as engine, engine.connect() as connection:
        if engine.name == "sqlite":
            connection.exec_driver_sql("BEGIN")  # its driver begins at the first write only
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield from read_lines(connection, _tables(connection))


def check_store(home: Home, file: Path, *, old: str, new: str) -> str:
    """Make sure that `put_store` would not find other rows, without making or writing anything.

    Returns:
        Which tables the store has, or would have, by MLflow's own name for them.

    Raises:
        BadInputError: the store has others, or is a server.
    """
    if not has_store(home):
        return _newest_migration()
    with mlflow_faults_explained(home), _engine(home) as engine, engine.connect() as connection:
        if not inspect(connection).has_table(_MIGRATION):
            return _newest_migration()
        migration = connection.execute(text(f"SELECT version_num FROM {_MIGRATION}")).scalar()
        _has_rows(home, connection, _wanted(file, old, new))
    return str(migration)


def put_store(home: Home, file: Path, *, old: str, new: str) -> None:
    """Put rows into a store that is empty, or that has just these.

    Args:
        home: where the store is; `connect` has made it.
        file: the rows, as `read_store` gives them.
        old: address of the folder of artefacts as the rows have it.
        new: where they lie now.

    Raises:
        BadInputError: the store has others.
        ValueError: the rows do not fit into its tables.
    """
    wanted = _wanted(file, old, new)
    with mlflow_faults_explained(home), _engine(home) as engine, engine.begin() as connection:
        if _has_rows(home, connection, wanted):
            return
        tables = _tables(connection)
        empty_tables(connection, tables)
        put_rows(connection, tables, _rows(file, old, new))


def _newest_migration() -> str:
    """Return which tables MLflow makes in a new store."""
    return str(_get_latest_schema_revision())  # type: ignore[no-untyped-call]


def _tables(connection: Connection) -> list[Table]:
    return tables_of(connection, but={_MIGRATION, *STUDY_TABLES})


def _rows(file: Path, old: str, new: str) -> Iterator[tuple[str, Row]]:
    with file.open(encoding="utf-8") as lines:
        for table, row in map(row_of, lines):
            yield table, _moved(table, row, old, new)


def _wanted(file: Path, old: str, new: str) -> int:
    return digest_lines(line_of(*row) for row in _rows(file, old, new))


def _has_rows(home: Home, connection: Connection, wanted: int) -> bool:
    """Whether a store has the rows of this digest already; False where it is new.

    Raises:
        BadInputError: it has others.
    """
    tables = _tables(connection)
    if digest_lines(read_lines(connection, tables)) == wanted:
        return True
    if not _is_fresh(read_lines(connection, tables)):
        raise BadInputError(
            f"MLflow at {public_address(home.tracking)}: has runs or models already; restore "
            "into an empty one (MLFLOW_TRACKING_URI), or give --no-tracking"
        )
    return False


def _moved(table: str, row: Row, old: str, new: str) -> Row:
    """Return a row whose artefacts lie elsewhere now."""
    changed = dict(row)
    for other, column in ADDRESSES:
        address = row.get(column)
        if other == table and isinstance(address, str) and f"{address}/".startswith(f"{old}/"):
            changed[column] = new + address[len(old) :]
    return changed


def _is_fresh(lines: Iterable[str]) -> bool:
    """Whether a store has what MLflow makes in a new one, and no more."""
    tables = [table for table, _ in map(row_of, lines)]
    return set(tables) <= _FRESH and len(tables) == len(set(tables))


@contextmanager
def _engine(home: Home) -> Iterator[Engine]:
    url = make_url(home.tracking)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()
