"""Writes a sweep into one file, and puts such a file into a study.

The file is a tar:

    sweep.json       what the sweep was started with
    events.jsonl     its events, a line each, in their order
    report.html      its page, for people
    checkpoints/<sweep>/<trial>/<checkpoint>/...    the checkpoints that the study keeps
    manifest.json    the digest of each of these, and who archived it, when and with what

The manifest is written last, so a file without it is not whole. An import stores the checkpoints
first, each whole, and the rows last and in one transaction: until then the study knows nothing of
the sweep, and the same command given again takes up what it finds.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from posetune.api import BadInputError
from posetune.home import Home, check_name
from posetune.report.pages.page import BestTrial, build_page
from posetune.storage import Storage
from posetune.storage.digest import digest_folder
from posetune.storage.whole_files import writing_whole
from posetune.study.act_events import NoteAdded
from posetune.study.old.upgrade import refuse_old_tables
from posetune.study.reading import find_sweep_row, read_sweep
from posetune.study.tables import journal, schema
from posetune.study.tables.database import Database
from posetune.study.tables.lease import is_live
from posetune.study.tables.whole_sweep import SweepRows, last_seq, read_rows, write_rows

__all__ = ["Archived", "Imported", "archive_sweep", "import_sweep"]

FORMAT = 1
"""Number of the layout of the file."""
_SWEEP, _EVENTS, _PAGE, _MANIFEST = "sweep.json", "events.jsonl", "report.html", "manifest.json"


class _Manifest(BaseModel):
    """Says what an archive holds; the last file in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    sweep: str
    by: str
    at: float
    files: dict[str, str]
    """The SHA-256 of each file beside the checkpoints."""
    checkpoints: dict[str, str]
    """The digest of each checkpoint by its folder."""
    missing: list[str]
    """Folders of checkpoints that the study keeps and that were missing or damaged."""


@dataclass(frozen=True)
class Archived:
    """Says what was archived."""

    sweep: str
    file: str
    bytes: int
    trials: int
    events: int
    checkpoints: int
    missing: list[str]
    """Checkpoints that the study keeps and that storage has no more, or damaged."""


@dataclass(frozen=True)
class Imported:
    """Says what was imported."""

    sweep: str
    archived_as: str
    trials: int
    events: int
    checkpoints: int
    missing: list[str]
    """Checkpoints that the archive does not have though the study names them."""


def archive_sweep(database: Database, home: Home, name: str, file: Path, *, by: str) -> Archived:
    """Write a sweep into a file, whole or not at all.

    Args:
        database: the study.
        home: where its checkpoints are.
        name: the sweep.
        file: the file, which must not be there yet.
        by: who archives it, as person@host.

    Raises:
        BadInputError: there is no such sweep, a driver is at work on it, or the file cannot be
            written.
    """
    refuse_old_tables(database)
    if file.exists() or not file.absolute().parent.is_dir():
        raise BadInputError(f"--to {file}: must be a new file in a folder that is there")
    rows = _rows_at_rest(database, name)
    view = read_sweep(database, name)
    texts = {
        _SWEEP: json.dumps(rows.sweep, indent=1),
        _EVENTS: "".join(json.dumps(row) + "\n" for row in rows.events),
        _PAGE: build_page(view, BestTrial(missing="it was not asked for"), commands=[]),
    }
    kept = {saved.folder: saved.digest for trial in view.trials for saved in trial.checkpoints}
    with _faults_of(file), writing_whole(file) as partial:
        partial.touch(mode=0o600)  # its owner's alone, as the study
        with tarfile.open(partial, "w") as tar:
            for member, text in texts.items():
                _add(tar, member, text)
            found = {f for f, digest in kept.items() if _add_folder(tar, home.storage, f, digest)}
            manifest = _Manifest(
                format=FORMAT,
                sweep=name,
                by=by,
                at=time.time(),
                files={member: _sha256(text.encode()) for member, text in texts.items()},
                checkpoints={folder: kept[folder] for folder in sorted(found)},
                missing=sorted(set(kept) - found),
            )
            _add(tar, _MANIFEST, manifest.model_dump_json(indent=1))
        _check_unmoved(database, name, view.id, len(rows.events))
        size = partial.stat().st_size
    counts = {"trials": len(view.trials), "events": len(rows.events), "checkpoints": len(found)}
    return Archived(sweep=name, file=str(file), bytes=size, missing=manifest.missing, **counts)


def import_sweep(
    database: Database, home: Home, file: Path, *, name: str | None = None, by: str
) -> Imported:
    """Put an archived sweep into a study, whole or not at all.

    The archive is looked at before anything is stored. Checkpoints of an import that was broken
    off stay in storage for the next one, and the study knows nothing of them.

    Args:
        database: the study.
        home: where its checkpoints go.
        file: the archive.
        name: name of the sweep in this study; None keeps its own.
        by: who imports it, as person@host.

    Raises:
        BadInputError: the file is no archive, not whole or damaged, or the name is taken.
    """
    refuse_old_tables(database)
    with _opened(file) as tar:
        manifest, rows = _read(tar, file)
        name = check_name(name or manifest.sweep)
        _refuse_taken(database, home.storage, name, manifest)
        text = f"imported from an archive that {manifest.by} made of sweep {manifest.sweep}"
        moved = rows.renamed(name).and_then(NoteAdded(time.time(), by, text))
        for folder, digest in manifest.checkpoints.items():
            place = _renamed(folder, manifest.sweep, name)
            _store(tar, file, home.storage, folder=folder, place=place, digest=digest)
        try:
            database.write(lambda connection: _write_once(connection, moved))
        except IntegrityError as error:  # another process was faster by a moment
            raise _taken(name) from error
    return Imported(
        sweep=name,
        archived_as=manifest.sweep,
        trials=len(rows.fold().trials),
        events=len(rows.events),
        checkpoints=len(manifest.checkpoints),
        missing=[_renamed(folder, manifest.sweep, name) for folder in manifest.missing],
    )


# -- writing -----------------------------------------------------------------------------------


def _rows_at_rest(database: Database, name: str) -> SweepRows:
    with database.reading() as connection:
        row = find_sweep_row(connection, name, database.address)
        query = select(schema.lease).where(schema.lease.c.sweep_id == row["id"])
        lease = connection.execute(query).one_or_none()
        if lease is not None and is_live(connection, lease):
            raise BadInputError(
                f"sweep {name}: is being driven by process {lease.pid} on {lease.host}; wait for "
                f"its end, or stop it first (posetune stop {name})"
            )
        return read_rows(connection, row)


def _check_unmoved(database: Database, name: str, sweep_id: int, seq: int) -> None:
    """Refuse what was read while a driver let checkpoints go."""
    with database.reading() as connection:
        if last_seq(connection, sweep_id) != seq:
            raise BadInputError(
                f"sweep {name}: went on while it was archived; nothing was written, archive it "
                "again when no driver is at work"
            )


def _add(tar: tarfile.TarFile, member: str, text: str) -> None:
    content = text.encode()
    entry = tarfile.TarInfo(member)
    entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
    tar.addfile(entry, io.BytesIO(content))


def _add_folder(tar: tarfile.TarFile, storage: Storage, folder: str, digest: str) -> bool:
    """Add a checkpoint; return whether it is there as it was committed."""
    with storage.reading(folder) as path:
        if path is None or digest_folder(path) != digest:
            return False
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            tar.add(file, f"{folder}/{file.relative_to(path).as_posix()}", recursive=False)
        return True


@contextmanager
def _faults_of(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInputError(f"{file}: cannot be written ({error.strerror or error})") from error


# -- reading -----------------------------------------------------------------------------------


@contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(file, "r:") as tar:
            # The holes of a sparse member take no space in the file, and may be of any size.
            sparse = [entry.name for entry in tar.getmembers() if entry.issparse()]
            if sparse:
                raise _damaged(file, f"{sparse[0]} has holes, which no archive of ours has")
            yield tar
    except tarfile.TarError as error:
        raise _damaged(file, str(error)) from error
    except FileNotFoundError as error:
        raise BadInputError(f"{file}: there is no such file") from error


def _read(tar: tarfile.TarFile, file: Path) -> tuple[_Manifest, SweepRows]:
    """Return what an archive says, once it is known to be whole."""
    try:
        manifest = _Manifest.model_validate_json(_content(tar, _MANIFEST))
    except (KeyError, ValidationError) as error:
        raise _damaged(file, "it has no manifest, or another one's") from error
    if manifest.format != FORMAT:
        raise BadInputError(
            f"{file}: is an archive of layout {manifest.format}, this posetune reads {FORMAT}; use "
            "the posetune that wrote it"
        )
    try:
        texts = {member: _content(tar, member) for member in (_SWEEP, _EVENTS)}
        for member, text in texts.items():
            if _sha256(text) != manifest.files[member]:
                raise _damaged(file, f"{member} is not what its manifest says")
        events = [json.loads(line) for line in texts[_EVENTS].splitlines()]
        rows = SweepRows(json.loads(texts[_SWEEP]), events)
        kept = {saved for trial in rows.fold().trials for saved in trial.checkpoints}
        is_whole = rows.sweep["name"] == manifest.sweep and bool(events)
    except BadInputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise _damaged(file, f"its events cannot be read: {error!r}") from error
    digests = {saved.folder: saved.digest for saved in kept}
    for folder, digest in manifest.checkpoints.items():
        if _digest_in(tar, folder) != digest:
            raise _damaged(file, f"{folder} is not what its manifest says")
    named = {**manifest.checkpoints, **{f: digests.get(f) for f in manifest.missing}}
    if not is_whole or named != digests:
        raise _damaged(file, "its manifest does not belong to its events")
    return manifest, rows


def _content(tar: tarfile.TarFile, member: str) -> bytes:
    opened = tar.extractfile(member)
    if opened is None:
        raise KeyError(member)
    return opened.read()


def _refuse_taken(database: Database, storage: Storage, name: str, manifest: _Manifest) -> None:
    """Refuse a name that the study has, or under which storage keeps what is not the archive's.

    What is the archive's was left there by an import that was killed.
    """
    with database.reading() as connection:
        if journal.find_sweep(connection, name) is not None:
            raise _taken(name)
    ours = {_renamed(folder, manifest.sweep, name) for folder in manifest.checkpoints}
    for trial in storage.children(f"checkpoints/{name}"):
        for child in storage.children(f"checkpoints/{name}/{trial}"):
            place = f"checkpoints/{name}/{trial}/{child}"
            if place not in ours and not child.endswith(".partial"):
                raise BadInputError(
                    f"sweep {name}: {storage.where(place)} is there already and not of this "
                    "archive; give another --name"
                )


def _taken(name: str) -> BadInputError:
    return BadInputError(f"sweep {name}: is in this study already; give another --name")


def _store(
    tar: tarfile.TarFile, file: Path, storage: Storage, *, folder: str, place: str, digest: str
) -> None:
    """Store a checkpoint of an archive, unless it is there already."""
    with storage.reading(place) as found:
        if found is not None and digest_folder(found) == digest:
            return
    storage.remove(place)
    with storage.writing(place) as partial:
        for inner, source in _files_in(tar, folder):
            target = partial / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as copy:
                shutil.copyfileobj(source, copy)
        if digest_folder(partial) != digest:
            raise _damaged(file, f"{folder} is not what its manifest says")


def _files_in(tar: tarfile.TarFile, folder: str) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """Yield the files below a folder in the order in which `digest_folder` takes them."""
    members = {PurePosixPath(entry.name): entry for entry in tar.getmembers() if entry.isfile()}
    for name in sorted(name for name in members if name.is_relative_to(folder)):
        source = tar.extractfile(members[name])
        if source is not None and ".." not in name.parts:
            with source:
                yield name.relative_to(folder), source


def _digest_in(tar: tarfile.TarFile, folder: str) -> str:
    """Return what `digest_folder` says of a folder."""
    total = hashlib.sha256()
    for inner, source in _files_in(tar, folder):
        content = hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]
        total.update(f"{inner.as_posix()}\0{content}\n".encode())
    return total.hexdigest()


def _write_once(connection: Connection, rows: SweepRows) -> None:
    """Write the rows, unless a transaction that was tried again has written them before."""
    there = journal.find_sweep(connection, rows.sweep["name"])
    if there is None:
        write_rows(connection, rows)
    elif read_rows(connection, there) != rows:
        raise _taken(rows.sweep["name"])


def _renamed(folder: str, old: str, new: str) -> str:
    """Return the folder of a checkpoint in a sweep of another name."""
    parts = PurePosixPath(folder).parts
    if len(parts) != 4 or parts[:2] != ("checkpoints", old) or ".." in parts:
        raise BadInputError(f"{folder}: is no folder of a checkpoint of sweep {old}")
    return "/".join(("checkpoints", new, *parts[2:]))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _damaged(file: Path, why: str) -> BadInputError:
    return BadInputError(f"{file}: is no whole archive of a sweep ({why}); take another copy of it")
