"""Opens the study database and runs transactions on it.

SQLite runs in WAL mode with full synchronisation: a committed event survives a power cut, and
readers (`posetune show`, the tracker) never block the driver.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    MetaData,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
)
from sqlalchemy.exc import (
    DatabaseError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from posetune.api import BadInputError
from posetune.study.tables import schema

__all__ = ["REACH_S", "Database", "may_write", "open_database", "reach_database", "url_for_reading"]

T = TypeVar("T")

CREATE_ATTEMPTS = 5

_FULL = ("disk is full", "No space left")

REACH_S = 10
"""Seconds that a server has to answer `reach_database`."""

RETRY_S = 60.0
"""How long a transaction is tried again while the database is busy or away, in seconds; a driver
waits longer, see `Home.database_patience_s`."""


class Database:
    """A study database; hand it to `driving.sweep` and `reading`."""

    def __init__(self, engine: Engine, *, patience_s: float = RETRY_S, read_only: str = "") -> None:
        """Hold a database.

        Args:
            engine: its connections.
            patience_s: for how long a transaction is tried again while it is busy or away.
            read_only: its address, where this user may read it and not write to it.
        """
        self.engine = engine
        self._patience_s, self._read_only = patience_s, read_only
        self.notice = ""
        """What a transaction is waiting for, as a sentence for people; empty while none waits."""
        self.give_up = threading.Event()
        """Event that ends the waiting for the database once it is set."""

    @property
    def address(self) -> str:
        """The address without its password."""
        return self._read_only or self.engine.url.render_as_string(hide_password=True)

    @property
    def may_be_written(self) -> bool:
        """Whether it was opened for writing; the server of one may refuse that all the same."""
        return not self._read_only

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view for several queries, while a driver goes on writing."""
        with _naming_damage(self.address), self.engine.connect() as connection:
            if self.engine.name == "sqlite":
                connection.exec_driver_sql("BEGIN")  # its driver begins at the first write only
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    def write(self, change: Callable[[Connection], T], *, patience_s: float | None = None) -> T:
        """Run `change` in one transaction.

        It is tried again for a while while the database is busy or away (`patience_s`), and for as
        long as it takes while its disk is full.

        Args:
            change: what is done.
            patience_s: how long it is tried, where that is not the database's own patience.

        Raises:
            BadInputError: this user may not write to it.
            OperationalError: it was away for too long.
        """
        if self._read_only:
            raise BadInputError(
                f"study database {self.address}: you may read it and not write to it; ask its "
                "owner, or use a home of your own (--home)"
            )
        deadline = time.monotonic() + (self._patience_s if patience_s is None else patience_s)
        pause = 0.05
        while True:
            try:
                with _naming_damage(self.address), self.engine.begin() as connection:
                    if self.engine.name == "sqlite":  # its driver begins at the first write only
                        connection.exec_driver_sql("BEGIN IMMEDIATE")
                    result = change(connection)
            except OperationalError as error:
                full = any(sign in str(error.orig) for sign in _FULL)
                late = time.monotonic() + pause > deadline and not full
                if late or self.give_up.wait(pause):
                    raise
                cause = "no space left" if full else error.orig
                self.notice = f"study database {self.address}: {cause}; trying again"
                pause = min(2 * pause, 2.0)
            else:
                self.notice = ""
                return result

    def make_tables(self, metadata: MetaData) -> None:
        """Make the tables that are missing; another process may be doing so at this moment."""
        try:
            self.write(lambda connection: metadata.create_all(connection))
        except (IntegrityError, ProgrammingError):
            with self.reading() as connection:
                if set(metadata.tables) - set(inspect(connection).get_table_names()):
                    raise

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()


def open_database(address: str, *, create: bool = True, patience_s: float = RETRY_S) -> Database:
    """Open the study database, making the tables where there are none.

    A study of the version before is opened as it is; see `upgrade`.

    Args:
        address: SQLAlchemy URL, as in `Home.database`.
        create: make a database that is not there; otherwise that is an error, and a file that
            this user may only read is opened for reading.
        patience_s: for how long a transaction is tried again while the database is away.

    Raises:
        BadInputError: it cannot be reached, is no study, is damaged, or is of another version.
    """
    url = make_url(address)
    shown = url.render_as_string(hide_password=True)
    nothing_yet = BadInputError(
        f"no study at {shown}: nothing has run under this home yet "
        "(posetune sweep FILE --name NAME starts one)"
    )
    file = Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None
    if file is not None:
        _check_readable(file, shown)
    if file is not None and not create and not file.exists():
        raise nothing_yet
    read_only = shown if file is not None and not create and not may_write(file) else ""
    engine = _make_engine(url, file, for_reading=bool(read_only))
    try:
        with _naming_damage(shown):
            version = _read_version(engine)
            if version is None:
                if not create:
                    raise nothing_yet
                _create_tables(engine)
                version = _read_version(engine)
            with engine.connect() as connection:
                if engine.name == "sqlite":
                    _check_pages(connection)
    except OperationalError as error:
        raise BadInputError(f"study database {shown}: cannot be opened ({error.orig})") from error
    except SQLAlchemyError as error:
        raise _damaged(shown, getattr(error, "orig", None) or error) from error
    if version not in schema.READ_VERSIONS:
        raise BadInputError(
            f"study database {shown}: has tables of version {version}, this posetune reads "
            f"{schema.OLD_VERSION} to {schema.VERSION}; use the posetune that wrote it, or "
            "another --home"
        )
    return Database(engine, patience_s=patience_s, read_only=read_only)


def _make_engine(url: URL, file: Path | None, *, for_reading: bool) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    if file is not None and for_reading:
        return create_engine(url_for_reading(file))
    if file is not None:
        _make_private(file, url.render_as_string())
    engine = create_engine(url)
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _make_private(file: Path, shown: str) -> None:
    """Make an SQLite file where there is none, which its owner alone can read.

    SQLite gives the files beside it the same mode.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise BadInputError(
            f"study database {shown}: cannot be made ({error.strerror}); give another --home"
        ) from error


def _check_readable(file: Path, shown: str) -> None:
    """Refuse an SQLite file that another user keeps to themselves, or a folder above it.

    Raises:
        BadInputError: says where this user may not go.
    """
    closed = None
    try:
        if file.exists() and not os.access(file, os.R_OK):
            closed = file
    except PermissionError:
        closed = next(p for p in reversed(file.parents) if not os.access(p, os.X_OK))
    if closed is not None:
        raise BadInputError(
            f"study database {shown}: you may not read {closed}; ask its owner to open it to you "
            "(chmod), or use a home of your own (--home)"
        )


def may_write(file: Path) -> bool:
    """Whether this user may write to an SQLite file, and make the files that it has beside it."""
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)


def url_for_reading(file: Path) -> URL:
    """Return the URL by which a file is read in a folder that nothing may be written to.

    While a driver is at work, its own files beside the database serve the reader too. Where it has
    ended there are none, SQLite could not make them, and is told that nobody writes.
    """
    log = file.with_name(f"{file.name}-wal")
    options = {"mode": "ro", "uri": "true"}
    if not log.exists():
        options["immutable"] = "1"
    return URL.create("sqlite", database=f"file:{quote(str(file))}", query=options)


def _read_version(engine: Engine) -> int | None:
    """Return the version of the tables; None where there are none yet."""
    if not inspect(engine).has_table(schema.about.name):
        return None
    with engine.connect() as connection:
        return connection.execute(select(schema.about.c.version)).scalar()


def reach_database(address: str) -> None:
    """Make sure that a sweep could open the study database, without making anything there.

    Args:
        address: SQLAlchemy URL, as in `Home.database`.

    Raises:
        BadInputError: says why not.
    """
    url = make_url(address)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite":
        file = Path(url.database or "")
        _check_readable(file, shown)
        if file.exists():
            open_database(address).close()
            return
        folder = next(parent for parent in file.parents if parent.exists())
        if not os.access(folder, os.W_OK):
            raise BadInputError(f"study database {shown}: {folder} cannot be written to")
        return
    engine = create_engine(url, connect_args={"connect_timeout": REACH_S})
    try:
        with engine.connect() as connection:
            exists = inspect(connection).has_table(schema.about.name)
            create = "SELECT has_schema_privilege(current_schema(), 'CREATE')"
            may = exists or connection.exec_driver_sql(create).scalar()
    except OperationalError as error:
        cause = " ".join(str(error.orig).split())
        raise BadInputError(
            f"study database {shown}: cannot be reached ({cause}); start it, or correct "
            "POSETUNE_DATABASE"
        ) from error
    finally:
        engine.dispose()
    if not may:
        raise BadInputError(
            f"study database {shown}: its user may make no tables; grant CREATE on the schema"
        )
    if exists:
        open_database(address, create=False).close()


def _check_pages(connection: Connection) -> None:
    """Raise if SQLite finds a broken page: better now than in the middle of a sweep."""
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise DatabaseError("PRAGMA quick_check", None, ValueError(found))


@contextmanager
def _naming_damage(shown: str) -> Iterator[None]:
    """Say which database is damaged, and what to do, where a page or a value cannot be read."""
    try:
        yield
    except JSONDecodeError as error:
        raise _damaged(shown, error) from error
    except DatabaseError as error:
        if type(error) is DatabaseError:  # its subclasses mean busy, away, or our own mistakes
            raise _damaged(shown, error.orig) from error
        raise


def _damaged(shown: str, cause: BaseException | None) -> BadInputError:
    return BadInputError(
        f"study database {shown}: is damaged or no study ({cause}); restore it from a backup, "
        "save what can be read (sqlite3 FILE .recover | sqlite3 NEW), or move it away to start "
        "afresh"
    )


def _create_tables(engine: Engine) -> None:
    """Make the tables that are missing; another process may be doing the same at this moment."""
    for attempt in range(CREATE_ATTEMPTS):
        try:
            schema.metadata.create_all(engine)
            with engine.begin() as connection:
                if connection.execute(select(schema.about.c.version)).scalar() is None:
                    connection.execute(insert(schema.about).values(version=schema.VERSION))
        except (OperationalError, ProgrammingError, IntegrityError):
            if attempt == CREATE_ATTEMPTS - 1:
                raise
            time.sleep(0.2 * (attempt + 1))
        else:
            return


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={1000 * REACH_S}")
    _use_write_ahead_log(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _use_write_ahead_log(cursor: Any) -> None:
    """Switch the file to SQLite's write-ahead log, with which readers do not wait for a writer.

    While another process writes to a file that has none yet, SQLite refuses this at once, whatever
    the timeout is.
    """
    deadline = time.monotonic() + REACH_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
