"""Backs up a whole home: the study, what it names in storage, and MLflow, while sweeps run.

A backup is a folder, or a prefix of a bucket:

    storage/checkpoints/..., storage/stages/..., storage/logs/...   what the study names
    artifacts/...            the files of MLflow's runs
    posetune-backup          says that what is here is a backup, also while it is not whole
    rows/study.jsonl         the rows of the study, a line each
    rows/mlflow.jsonl        the rows of MLflow's database
    rows/backup.json         what is there with its digests; the last file, so that its presence
                             says that the backup is whole

Why it is consistent though everything goes on: MLflow only follows the study, so its rows are read
first and are never ahead of the study's; whatever they lack is shipped again after a restore. The
rows of the study are read at one moment, then the files that they name are copied. A driver may
delete a checkpoint before its turn comes; then the rows are read again, which name a newer one,
until nothing that they name is gone. The rows that the backup keeps are the last ones read.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from posetune.api import BadInputError
from posetune.home import Home
from posetune.storage import Folder, Storage, open_storage
from posetune.storage.digest import digest_folder
from posetune.study.old.upgrade import refuse_old_tables
from posetune.study.tables import schema
from posetune.study.tables.database import Database
from posetune.study.tables.whole_study import NamedFiles, read_study
from posetune.trial.checkpoints import log_file

__all__ = [
    "ARTIFACTS_FOLDER",
    "FORMAT",
    "MANIFEST_FILE",
    "MLFLOW_FILE",
    "ROWS_FOLDER",
    "STORAGE_FOLDER",
    "STUDY_FILE",
    "BackedUp",
    "Manifest",
    "back_up",
    "copy_files",
    "sha256_of",
]

FORMAT = 1
"""Number of the layout of a backup."""
STORAGE_FOLDER, ARTIFACTS_FOLDER, ROWS_FOLDER = "storage", "artifacts", "rows"
"""Folders of a backup."""
MARKER_FILE = "posetune-backup"
"""File without which nothing is written to a place that is not empty."""
STUDY_FILE, MLFLOW_FILE, MANIFEST_FILE = "study.jsonl", "mlflow.jsonl", "backup.json"
"""Files in the folder of the rows."""
ROUNDS = 20
"""How often the study is read again because a checkpoint that it named is gone."""


class MlflowManifest(BaseModel):
    """Says whose rows a backup has of MLflow."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    migration: str
    """MLflow's name for the tables that they are from."""
    tracking: str
    """Address of MLflow, without a password."""
    artifacts: str
    """Address of the folder of its files."""


class Manifest(BaseModel):
    """Says what a backup holds; the last file in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    tables: int
    """Version of the study's tables."""
    by: str
    at: float
    mlflow: MlflowManifest | None
    """None where there is no MLflow in it."""
    rows: dict[str, str]
    """The SHA-256 of each file of rows."""
    folders: dict[str, str]
    """The digest of each folder that the backup holds."""
    logs: dict[str, str]
    """The SHA-256 of each trial's log, by its name in storage."""
    missing: list[str]
    """Folders that the study names and that storage had no more, or damaged."""


@dataclass(frozen=True)
class BackedUp:
    """Says what was backed up."""

    address: str
    sweeps: int
    trials: int
    checkpoints: int
    stages: int
    mlflow: bool
    missing: list[str] = field(default_factory=list)
    """Folders that the study names and that storage has no more, or damaged."""


def back_up(
    database: Database,
    home: Home,
    to: str,
    *,
    tracking: bool = True,
    artifacts: str | None = None,
    by: str,
) -> BackedUp:
    """Write a backup, whole or not at all; given again, it ends one that was broken off.

    Args:
        database: the study.
        home: where its checkpoints and MLflow are.
        to: a new folder or prefix of a bucket.
        tracking: whether MLflow is part of it.
        artifacts: where MLflow's files lie; None takes the home's folder.
        by: who backs up, as person@host.

    Raises:
        BadInputError: the place has other files or a whole backup, cannot be written to, or MLflow
            cannot be read.
    """
    refuse_old_tables(database)
    files = open_storage(artifacts or home.artifacts)
    target = _opened(to, [open_storage(home.folder), home.storage, *([files] if tracking else [])])
    with tempfile.TemporaryDirectory(prefix="posetune-backup-") as scratch, _faults_of(to):
        folder = Path(scratch)
        mlflow = _read_mlflow(home, folder / MLFLOW_FILE, artifacts) if tracking else None
        named, folders, missing = _copy_named(database, home.storage, target, folder / STUDY_FILE)
        logs = _copy_logs(home.storage, target, named)
        if mlflow is not None:
            folders |= _copy_artifacts(files, target)
        manifest = Manifest(
            format=FORMAT,
            tables=schema.VERSION,
            by=by,
            at=time.time(),
            mlflow=mlflow,
            rows={file.name: sha256_of(file) for file in sorted(folder.iterdir())},
            folders=folders,
            logs=logs,
            missing=missing,
        )
        target.remove(ROWS_FOLDER)
        with target.writing(ROWS_FOLDER, last=MANIFEST_FILE) as partial:
            copy_files(folder, partial)
            (partial / MANIFEST_FILE).write_text(
                manifest.model_dump_json(indent=1), encoding="utf-8"
            )
    return BackedUp(
        address=target.address,
        sweeps=named.sweeps,
        trials=len(named.trials),
        checkpoints=sum(name in folders for name in map(_stored, named.checkpoints)),
        stages=sum(name in folders for name in map(_stored, map(_stage, named.stages))),
        mlflow=mlflow is not None,
        missing=missing,
    )


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def copy_files(source: Path, target: Path) -> None:
    """Copy all files below a folder into another one."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def _opened(to: str, sources: Sequence[Storage]) -> Storage:
    """Return the place of a backup, which has nothing or a backup that was broken off.

    Args:
        to: its address.
        sources: what is backed up, none of which may have the backup in it.
    """
    target = open_storage(to)
    for source in sources:
        if _place(target).startswith(_place(source)):
            raise BadInputError(
                f"--to {to}: lies in what is backed up ({source.address}); give a place elsewhere"
            )
    if isinstance(target, Folder):
        with contextlib.suppress(OSError):  # the line below says what is wrong
            target.root.mkdir(mode=0o700, parents=True, exist_ok=True)  # its owner's alone
    target.prepare()
    if target.exists(f"{ROWS_FOLDER}/{MANIFEST_FILE}"):
        raise BadInputError(f"--to {to}: holds a whole backup already; give a new place")
    there = target.children("")
    if there and MARKER_FILE not in there:
        raise BadInputError(f"--to {to}: holds {there[0]} and is no backup; give a new place")
    target.touch(MARKER_FILE)
    if isinstance(target, Folder):
        for left in list(target.root.rglob("*.????????.partial")):  # by one that was killed
            shutil.rmtree(left, ignore_errors=True)
    return target


def _place(storage: Storage) -> str:
    """Return where a storage lies; the place of all that lies in it begins with these words."""
    where = str(storage.root.resolve()) if isinstance(storage, Folder) else storage.address
    return where.rstrip("/") + "/"


@contextmanager
def _faults_of(to: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInputError(
            f"--to {to}: the backup was broken off ({error.strerror or error}); the same command "
            "again ends it"
        ) from error


def _read_mlflow(home: Home, file: Path, artifacts: str | None) -> MlflowManifest | None:
    from posetune.tracking.server import store_rows  # imports MLflow
    from posetune.tracking.server.connection import public_address

    if not store_rows.has_store(home):
        return None
    migration = store_rows.read_migration(home)
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(store_rows.read_store(home))
    return MlflowManifest(
        migration=migration,
        tracking=public_address(home.tracking),
        artifacts=open_storage(artifacts or home.artifacts).uri("").rstrip("/"),
    )


def _copy_named(
    database: Database, storage: Storage, target: Storage, rows: Path
) -> tuple[NamedFiles, dict[str, str], list[str]]:
    """Copy what the study names, and return it with the digest of each copy and what is gone.

    Checkpoints are gone for good where rows that were read later still name them.
    """
    copied: dict[str, str] = {}
    gone: set[str] = set()
    for _ in range(ROUNDS):
        named = read_study(database, rows)
        wanted = {**named.checkpoints, **dict.fromkeys(map(_stage, named.stages))}
        missing = set()
        for name, digest in wanted.items():
            found = copied.get(name) or _copy(storage, name, target, digest)
            if found is None:
                missing.add(name)
            else:
                copied[name] = found
        if missing <= gone:
            break
        gone = missing
    for name in copied.keys() - wanted.keys():
        target.remove(_stored(name))
    folders = {_stored(name): copied[name] for name in sorted(copied.keys() & wanted.keys())}
    return named, folders, sorted(missing)


def _copy(storage: Storage, name: str, target: Storage, digest: str | None) -> str | None:
    """Copy a folder unless it is there; return its digest, None where it is gone or damaged.

    Args:
        storage: where it is.
        name: the folder.
        target: the backup.
        digest: what the study says of it; None for the product of a stage, which says so itself.
    """
    place = _stored(name)
    with target.reading(place) as there:  # from a backup that was broken off
        if there is not None and (found := digest_folder(there)) == digest:
            return found
    target.remove(place)
    try:
        with storage.reading(name) as source:
            if source is None or (digest is not None and digest_folder(source) != digest):
                return None
            with target.writing(place) as partial:
                copy_files(source, partial)
                found = digest_folder(partial)
                if digest not in (None, found):
                    raise FileNotFoundError(name)
                return found
    except FileNotFoundError:  # its driver has let it go meanwhile
        return None


def _copy_logs(storage: Storage, target: Storage, named: NamedFiles) -> dict[str, str]:
    """Copy what the trials have printed so far."""
    digests = {}
    for sweep in dict.fromkeys(sweep for sweep, _ in named.trials):
        place = f"{STORAGE_FOLDER}/logs/{sweep}"
        target.remove(place)
        with target.writing(place) as partial:
            for number in (n for other, n in named.trials if other == sweep):
                name = log_file(sweep, number)
                content = storage.read_log(name)
                if content:
                    (partial / Path(name).name).write_bytes(content)
                    digests[name] = hashlib.sha256(content).hexdigest()
    return digests


def _copy_artifacts(source: Storage, target: Storage) -> dict[str, str]:
    """Copy the files of MLflow's runs; they are only ever added."""
    digests = {}
    for child in source.children(""):
        place = f"{ARTIFACTS_FOLDER}/{child}"
        target.remove(place)
        with source.reading(child) as found, target.writing(place) as partial:
            if found is not None:
                copy_files(found, partial)
            digests[place] = digest_folder(partial)
    return digests


def _stored(name: str) -> str:
    return f"{STORAGE_FOLDER}/{name}"


def _stage(product: tuple[str, str]) -> str:
    name, key = product
    return f"stages/{name}/{key}"
