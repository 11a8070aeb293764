"""Decides where things live: the study database, storage and tracking.

Each has an embedded default under one folder, the home. Every command resolves its addresses
here and nowhere else: no other module reads the environment for them.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator

from posetune.api import BadInputError
from posetune.storage import Storage, open_storage

__all__ = ["DEFAULT_HOME", "Home", "check_name", "sqlite_address"]

DEFAULT_HOME = "runs"
"""Folder of the home if neither an option nor the environment names one."""
FALLBACK_VARIABLE = "POSETUNE_HOME_ELSE"
"""Environment variable that replaces `DEFAULT_HOME` in a job on a cluster, because each job has a
working folder of its own."""
PATIENCE_VARIABLE = "POSETUNE_DATABASE_PATIENCE"
"""Environment variable of the minutes for which a driver waits for its study database."""
DATABASE_PATIENCE_S = 600.0
"""The same in seconds if the variable is not set: a server that is restarted, or moved, is back."""
LAST_PORT = 65535
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Home(BaseModel):
    """Holds the addresses that every command uses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    """Absolute path of the folder that holds everything without an address of its own."""
    database: str
    """SQLAlchemy URL of the study database."""
    storage: Annotated[
        Storage,
        PlainValidator(lambda given: given if isinstance(given, Storage) else open_storage(given)),
        PlainSerializer(lambda storage: storage.address),
    ]
    """Storage of checkpoints, stage products and logs, which every node reaches."""
    tracking: str
    """MLflow tracking URI."""
    artifacts: Path
    """Folder of the runs' artefacts if tracking is an SQLite file; servers have their own."""
    database_patience_s: float = DATABASE_PATIENCE_S
    """For how long a driver waits for a study database that is away, in seconds."""

    @classmethod
    def resolve(cls, folder: Path | None = None) -> Home:
        """Resolve the addresses from `folder` and the environment.

        The environment's POSETUNE_DATABASE, POSETUNE_STORAGE and MLFLOW_TRACKING_URI override what
        the folder has by default.

        Args:
            folder: the home; None takes POSETUNE_HOME or, if that is not set, `runs`.

        Raises:
            BadInputError: an address is of a kind that is not supported, or shows a password.
        """
        default = os.environ.get(FALLBACK_VARIABLE) or DEFAULT_HOME
        home = Path(folder or os.environ.get("POSETUNE_HOME") or default).expanduser()
        home = home.absolute()
        for name in ("POSETUNE_DATABASE", "MLFLOW_TRACKING_URI"):
            if name in os.environ:
                _refuse_unreadable(name, os.environ[name])
                _refuse_password_in_query(name, os.environ[name])
        database = os.environ.get("POSETUNE_DATABASE") or sqlite_address(home / "study.db")
        try:
            storage = open_storage(os.environ.get("POSETUNE_STORAGE") or home / "storage")
        except BadInputError as error:
            raise BadInputError(f"POSETUNE_STORAGE: {error}") from error
        return cls(
            folder=home,
            database=_database_url(database),
            storage=storage,
            tracking=os.environ.get("MLFLOW_TRACKING_URI") or sqlite_address(home / "mlflow.db"),
            database_patience_s=_patience(os.environ.get(PATIENCE_VARIABLE, "")),
            artifacts=home / "mlartifacts",
        )

    def prepare(self) -> Home:
        """Make the home's folder and its storage; every command that writes calls it first.

        A new home is its owner's alone, because logs and records show what is worked on. Whoever
        shares a home opens it with chmod.

        Raises:
            BadInputError: a folder cannot be made.
        """
        if not self.folder.exists():
            with contextlib.suppress(OSError):  # the line below says what is wrong
                self.folder.mkdir(mode=0o700, parents=True)
        open_storage(self.folder).prepare()
        self.storage.prepare()
        return self

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables under which another process resolves the same addresses.

        An address that is the folder's default is left out, because the nodes of a cluster may
        have another default.
        """
        given = {
            "POSETUNE_DATABASE": (self.database, sqlite_address(self.folder / "study.db")),
            "POSETUNE_STORAGE": (self.storage.address, str(self.folder / "storage")),
            "MLFLOW_TRACKING_URI": (self.tracking, sqlite_address(self.folder / "mlflow.db")),
        }
        patience = {PATIENCE_VARIABLE: f"{self.database_patience_s / 60:g}"}
        if self.database_patience_s == DATABASE_PATIENCE_S:
            patience = {}
        changed = {name: value for name, (value, usual) in given.items() if value != usual}
        usual_home = self.folder == Path(DEFAULT_HOME).absolute()
        return {
            FALLBACK_VARIABLE if usual_home else "POSETUNE_HOME": str(self.folder),
            **changed,
            **patience,
        }


def _refuse_unreadable(name: str, address: str) -> None:
    """Refuse an address that its reader would fail at; what is wrong in it may be a password."""
    from sqlalchemy.exc import ArgumentError  # a process without such an address does without it

    try:
        is_whole = (_port(address) or 0) <= LAST_PORT and address.isprintable()
    except (ValueError, ArgumentError):
        is_whole = False
    if not is_whole:
        raise BadInputError(
            f"{name}: cannot be read as an address; write SCHEME://USER@HOST:PORT/NAME, with what "
            "is special in a name or password as %XX"
        )


def _port(address: str) -> int | None:
    """Return the port of an address, read as its user reads it.

    A password in the address of a database may hold any character.

    Raises:
        ValueError: it cannot be read.
        ArgumentError: the same, of a database.
    """
    from sqlalchemy.engine import make_url

    if not address.startswith(("http://", "https://")):
        return make_url(address).port if "://" in address else None
    parts = urlsplit(address)
    if not parts.hostname:
        raise ValueError("an address without a host")
    return parts.port


def _refuse_password_in_query(name: str, address: str) -> None:
    """Refuse an address with a password in its query.

    Wherever an address is shown, only a password before the @ is recognised and hidden.
    """
    query = address.partition("?")[2].lower()
    if re.search(r"(^|&)[^=&]*(pass|secret|token)[^=&]*=", query):
        raise BadInputError(
            f"{name}: has a password after the '?'; write it before the '@' (user:password@host)"
        )


def sqlite_address(file: Path) -> str:
    """Return the SQLAlchemy URL of an SQLite file.

    What a URL gives a meaning of its own is quoted: without that, a folder named `what?` would
    become the file `wha` and a query.
    """
    quoted = str(file).replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{quoted}"


def _patience(minutes: str) -> float:
    """Return the seconds of a number of minutes as people write it; the default of nothing."""
    try:
        patience_s = 60 * float(minutes) if minutes else DATABASE_PATIENCE_S
    except ValueError:
        patience_s = math.nan
    if not 0 <= patience_s < math.inf:
        raise BadInputError(
            f"{PATIENCE_VARIABLE}: must be a number of minutes, got {minutes!r}; e.g. 10"
        )
    return patience_s


def _database_url(address: str) -> str:
    """Return the SQLAlchemy URL for an address as people write it."""
    scheme, separator, rest = address.partition("://")
    if not separator:  # a plain path means an SQLite file
        return sqlite_address(Path(address).expanduser().absolute())
    if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        return f"postgresql+psycopg://{rest}"
    if scheme == "sqlite" and rest.partition("?")[0].strip("/") in ("", ":memory:"):
        raise BadInputError(
            "POSETUNE_DATABASE: a study in memory ends with its process; name a file "
            "(sqlite:////home/me/study.db)"
        )
    if scheme == "sqlite":
        return address
    raise BadInputError(
        f"POSETUNE_DATABASE: {scheme}:// is not supported; give an SQLite file or postgresql://..."
    )


def check_name(name: str) -> str:
    """Return `name` if a sweep may have it; the name is also that of folders.

    Raises:
        BadInputError: the name could lead out of its folder, is longer than 64 characters, or has
            characters that not every system takes in the name of a folder.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise BadInputError(
            f"--name {name!r}: a sweep's name takes 1 to 64 letters, digits, '_', '-' and '.', "
            "starts with a letter or digit and has no '..'."
        )
    return name
