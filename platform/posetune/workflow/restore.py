"""Restores a backup into an empty home: files first, then MLflow's rows, the study's rows last.

A home that has something else is refused before the first copy. Until the study's rows are there,
in one transaction, no command knows anything of the sweeps, and the same command again takes up a
restore that was broken off. Every file is held against its digest before anything counts. The home
may be of another kind than the one that was backed up: PostgreSQL instead of SQLite, a bucket
instead of a folder.
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
from posetune.study.tables.whole_study import check_study, put_study
from posetune.workflow.backup import (
    ARTIFACTS_FOLDER,
    FORMAT,
    MANIFEST_FILE,
    MLFLOW_FILE,
    ROWS_FOLDER,
    STORAGE_FOLDER,
    STUDY_FILE,
    Manifest,
    MlflowManifest,
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
        BadInputError: there is no whole backup, it is damaged, or the home is not empty; then
            nothing was written unless a folder of the backup is damaged.
    """
    refuse_old_tables(database)
    backup, manifest = open_backup(address)
    mlflow = manifest.mlflow if tracking else None
    files = open_storage(artifacts or home.artifacts)
    with backup.reading(ROWS_FOLDER) as rows, _faults_of(address):
        if rows is None or any(sha256_of(rows / f) != d for f, d in manifest.rows.items()):
            raise _damaged(address, f"{ROWS_FOLDER}/ is not what its {MANIFEST_FILE} says")
        old, new = "", ""
        if mlflow is not None:
            old, new = mlflow.tracking, _check_mlflow(home, address, mlflow, rows, files)
        check_study(database, rows / STUDY_FILE, old=old, new=new)
        folders = _folders_to_copy(manifest, home.storage, files if mlflow is not None else None)
        logs = _logs_to_copy(backup, manifest, home.storage)
        for folder in folders:
            _copy(backup, folder)
        for name in logs:
            _copy_log(backup, home.storage, name)
        if mlflow is not None:
            _put_mlflow(home, mlflow, rows, files)
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


@dataclass(frozen=True)
class _Folder:
    """Says where a folder of a backup goes."""

    place: str
    """Its name in the backup."""
    target: Storage
    name: str
    """Its name in the target."""
    digest: str


def _folders_to_copy(
    manifest: Manifest, storage: Storage, artifacts: Storage | None
) -> list[_Folder]:
    """Return the folders of a backup that are not there yet.

    Args:
        manifest: what the backup says that it holds.
        storage: where checkpoints and stage products go.
        artifacts: where MLflow's files go; None where they are left out.

    Raises:
        BadInputError: something else is where one of them goes.
    """
    targets = {STORAGE_FOLDER: storage, ARTIFACTS_FOLDER: artifacts}
    found = []
    for place, digest in manifest.folders.items():
        kind, _, name = place.partition("/")
        target = targets.get(kind)
        if target is not None:
            folder = _Folder(place, target, name, digest)
            if not _is_there(folder):
                found.append(folder)
    return found


def _is_there(folder: _Folder) -> bool:
    if not folder.target.children(folder.name):
        return False
    with folder.target.reading(folder.name) as there:
        if there is None or digest_folder(there) != folder.digest:
            raise _other_content(folder.target, folder.name)
    return True


def _copy(backup: Storage, folder: _Folder) -> None:
    with backup.reading(folder.place) as source, folder.target.writing(folder.name) as partial:
        if source is not None:
            copy_files(source, partial)
        if digest_folder(partial) != folder.digest:
            raise _damaged(backup.address, f"{folder.place} is not what its {MANIFEST_FILE} says")


def _logs_to_copy(backup: Storage, manifest: Manifest, target: Storage) -> list[str]:
    """Return the logs that are not there yet, or not whole.

    Raises:
        BadInputError: one is damaged, or something else is where it goes.
    """
    found = []
    for name, digest in manifest.logs.items():
        place = f"{STORAGE_FOLDER}/{name}"
        content, there = backup.read(place), target.read_log(name)
        if hashlib.sha256(content).hexdigest() != digest:
            raise _damaged(backup.address, f"{place} is not what its {MANIFEST_FILE} says")
        if not content.startswith(there):
            raise _other_content(target, name)
        if there != content:
            found.append(name)
    return found


def _copy_log(backup: Storage, target: Storage, name: str) -> None:
    """Give a trial's log to storage; what that has of it is taken away first."""
    target.remove(name)
    log = target.log(name)
    log.file.write_bytes(backup.read(f"{STORAGE_FOLDER}/{name}"))
    log.close()


def _other_content(target: Storage, name: str) -> BadInputError:
    return BadInputError(
        f"{target.where(name)}: is there already and not what the backup has; restore into an "
        "empty home"
    )


def _check_mlflow(
    home: Home, address: str, mlflow: MlflowManifest, rows: Path, files: Storage
) -> str:
    """Make sure that MLflow can take the rows, and return its address; nothing is made for it."""
    from posetune.tracking.server.connection import public_address  # imports MLflow
    from posetune.tracking.server.store_rows import check_store

    here = check_store(home, rows / MLFLOW_FILE, old=mlflow.artifacts, new=_address_of(files))
    if here != mlflow.migration:
        raise BadInputError(
            f"{address}: has MLflow's rows of migration {mlflow.migration}, and MLflow here makes "
            f"{here}; restore with the MLflow that wrote them (mlflow db upgrade follows), or give "
            "--no-tracking"
        )
    return public_address(home.tracking)


def _put_mlflow(home: Home, mlflow: MlflowManifest, rows: Path, files: Storage) -> None:
    """Put MLflow's rows where they belong."""
    from posetune.tracking.server.connection import connect  # imports MLflow
    from posetune.tracking.server.store_rows import put_store

    connect(home)  # makes the store
    put_store(home, rows / MLFLOW_FILE, old=mlflow.artifacts, new=_address_of(files))


def _address_of(files: Storage) -> str:
    return files.uri("").rstrip("/")


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
