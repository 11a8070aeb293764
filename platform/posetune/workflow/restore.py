"""Restores a backup into an empty home: files first, then MLflow's rows, the study's rows last.

Until the study's rows are there, in one transaction, no command knows anything of the sweeps, and
the same command again takes up a restore that was broken off. Every file is held against its digest
before anything counts. The home may be of another kind than the one that was backed up: PostgreSQL
instead of SQLite, a bucket instead of a folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from posetune.api import BadInputError
from posetune.home import Home
from posetune.notifications import outbox
from posetune.storage import Storage, open_storage
from posetune.storage.digest import digest_folder
from posetune.study.old.upgrade import refuse_old_tables
from posetune.study.reading import sweep_names
from posetune.study.tables import schema
from posetune.study.tables.database import Database
from posetune.study.tables.whole_study import put_study
from posetune.workflow.backup import (
    ARTIFACTS_FOLDER,
    FORMAT,
    MANIFEST_FILE,
    MLFLOW_FILE,
    ROWS_FOLDER,
    STORAGE_FOLDER,
    STUDY_FILE,
    Manifest,
    copy_files,
    sha256_of,
)

__all__ = ["Restored", "open_backup", "restore"]


@dataclass(frozen=True)
class Restored:
    """Says what was restored."""

    sweeps: list[str]
    folders: int
    mlflow: bool
    by: str
    """Who made the backup, as person@host."""
    at: float
    """When it was made, seconds since the epoch."""
    missing: list[str]
    """Folders that the study names and that the backup does not have."""


def open_backup(address: str) -> tuple[Storage, Manifest]:
    """Return a backup and what it says that it holds.

    Raises:
        BadInputError: there is none, it is not whole, or of another layout.
    """
    backup = open_storage(address)
    content = backup.read(f"{ROWS_FOLDER}/{MANIFEST_FILE}")
    if not content:
        raise BadInputError(
            f"{address}: is no whole backup (it has no {ROWS_FOLDER}/{MANIFEST_FILE}); give the "
            "address that posetune backup was given"
        )
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise _damaged(address, f"{ROWS_FOLDER}/{MANIFEST_FILE} cannot be read") from error
    if (manifest.format, manifest.tables) != (FORMAT, schema.VERSION):
        raise BadInputError(
            f"{address}: is a backup of layout {manifest.format} with tables of version "
            f"{manifest.tables}, this posetune restores {FORMAT} and {schema.VERSION}; use the "
            "posetune that wrote it, and posetune upgrade afterwards"
        )
    return backup, manifest


def restore(
    database: Database,
    home: Home,
    address: str,
    *,
    tracking: bool = True,
    artifacts: str | None = None,
) -> Restored:
    """Restore a backup into a home that is empty, whole or not at all.

    Args:
        database: the study of the home.
        home: where checkpoints and MLflow go.
        address: the backup.
        tracking: whether MLflow is restored too.
        artifacts: where MLflow's files go; None takes the home's folder.

    Raises:
        BadInputError: there is no whole backup, it is damaged, or the home is not empty.
    """
    refuse_old_tables(database)
    backup, manifest = open_backup(address)
    mlflow = manifest.mlflow if tracking else None
    files = open_storage(artifacts or home.artifacts)
    with backup.reading(ROWS_FOLDER) as rows, _faults_of(address):
        if rows is None or any(sha256_of(rows / f) != d for f, d in manifest.rows.items()):
            raise _damaged(address, f"{ROWS_FOLDER}/ is not what its {MANIFEST_FILE} says")
        if mlflow is not None:
            _check_migration(home, address, mlflow.migration)
        for place, digest in manifest.folders.items():
            kind, _, name = place.partition("/")
            if kind == STORAGE_FOLDER:
                _copy(backup, place, home.storage, name=name, digest=digest)
            elif kind == ARTIFACTS_FOLDER and mlflow is not None:
                _copy(backup, place, files, name=name, digest=digest)
        for name, digest in manifest.logs.items():
            _copy_log(backup, home.storage, name, digest)
        old = new = ""
        if mlflow is not None:
            old, new = (
                mlflow.tracking,
                _put_mlflow(home, rows / MLFLOW_FILE, mlflow.artifacts, files),
            )
        _make_tables(database, rows / STUDY_FILE)
        put_study(database, rows / STUDY_FILE, old=old, new=new)
    return Restored(
        sweeps=sorted(sweep_names(database)),
        folders=len(manifest.folders),
        mlflow=mlflow is not None,
        by=manifest.by,
        at=manifest.at,
        missing=manifest.missing,
    )


def _copy(backup: Storage, place: str, target: Storage, *, name: str, digest: str) -> None:
    """Copy a folder of a backup, unless it is there."""
    with target.reading(name) as there:
        if there is not None and digest_folder(there) == digest:
            return
    if target.children(name):
        raise BadInputError(
            f"{target.where(name)}: is there already and not what the backup has; restore into an "
            "empty home"
        )
    with backup.reading(place) as source, target.writing(name) as partial:
        if source is not None:
            copy_files(source, partial)
        if digest_folder(partial) != digest:
            raise _damaged(backup.address, f"{place} is not what its {MANIFEST_FILE} says")


def _copy_log(backup: Storage, target: Storage, name: str, digest: str) -> None:
    """Give a trial's log to storage, unless it is there; what it has of it is taken away first."""
    content, there = backup.read(f"{STORAGE_FOLDER}/{name}"), target.read_log(name)
    if hashlib.sha256(content).hexdigest() != digest:
        raise _damaged(
            backup.address, f"{STORAGE_FOLDER}/{name} is not what its {MANIFEST_FILE} says"
        )
    if there == content:
        return
    if not content.startswith(there):
        raise BadInputError(
            f"{target.where(name)}: is there already and not what the backup has; restore into an "
            "empty home"
        )
    target.remove(name)
    log = target.log(name)
    log.file.write_bytes(content)
    log.close()


def _check_migration(home: Home, address: str, migration: str) -> None:
    from posetune.tracking.server.store_rows import has_store, read_migration  # imports MLflow

    has_store(home)  # refuses a server
    here = read_migration(home)
    if here != migration:
        raise BadInputError(
            f"{address}: has MLflow's rows of migration {migration}, and MLflow here makes {here}; "
            "restore with the MLflow that wrote them (mlflow db upgrade follows), or give "
            "--no-tracking"
        )


def _put_mlflow(home: Home, rows: Path, old: str, files: Storage) -> str:
    """Put MLflow's rows where they belong, and return MLflow's address."""
    from posetune.tracking.server.connection import public_address  # imports MLflow
    from posetune.tracking.server.store_rows import put_store

    put_store(home, rows, old=old, new=files.uri("").rstrip("/"))
    return public_address(home.tracking)


def _make_tables(database: Database, rows: Path) -> None:
    """Make the tables that a study has only where they are needed."""
    with rows.open(encoding="utf-8") as lines:
        tables = {line[: line.index(",")] for line in lines}
    database.write(schema.metadata.create_all)
    if any(name.startswith('["notify_') for name in tables):
        outbox.make_tables(database)


@contextmanager
def _faults_of(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInputError(
            f"{address}: the restore was broken off ({error.strerror or error}); the same command "
            "again ends it"
        ) from error
    except ValueError as error:
        if isinstance(error, BadInputError):
            raise
        raise _damaged(address, f"its rows cannot be read: {error}") from error


def _damaged(address: str, why: str) -> BadInputError:
    return BadInputError(f"{address}: is a damaged backup ({why}); take another one")
