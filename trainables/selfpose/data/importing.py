"""The shared path of every importer: motions -> cameras -> crops -> pictures -> shards.

Read `run_import` first. Work happens in `OUT.partial`, in chunks of rows that worker processes
draw and this process writes, shard by shard; a journal there names the shards that are whole.
The same command again keeps those and goes on; the folder becomes `OUT` at the very end.
What is drawn depends on the options and the row alone (`seeding`), never on the workers.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from posetune.api import BadInputError, Progress
from selfpose.data.drawing import CHUNK_ROWS, Chunk, draw_chunks
from selfpose.data.motions import Corpus, choose_frames
from selfpose.data.rendering import Level
from selfpose.data.store import (
    SHARD_ROWS,
    SPLITS,
    Metadata,
    Shard,
    open_store,
    row_bytes,
    write_metadata,
    write_shard,
    write_whole,
)

__all__ = ["ImportOptions", "run_import"]

JOURNAL_FILE = "import.json"
JOINT_PARTS = {"joints_2d": 2, "joints_3d": 3}


class ImportOptions(BaseModel):
    """How a store is made, whatever it is made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(
        128, ge=32, le=256, multiple_of=8, description="Side of the images, pixels."
    )
    views: int = Field(4, ge=1, le=4, description="Cameras; a frame gives one image for each.")
    level: Level = Field("rooms", description="How hard the images are.")
    limit: int | None = Field(
        None, ge=1, description="Frames per split, spread evenly over motions; default all."
    )
    seed: int = Field(0, ge=0, description="Looks, rooms, places, crops and noise follow from it.")
    workers: int | None = Field(None, ge=1, description="Processes; default one per core.")


@dataclass(frozen=True)
class _Rows:
    """The rows of one split, before they are drawn: where each comes from."""

    motion_n: NDArray[np.int32]
    position_n: NDArray[np.int64]
    camera_n: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.motion_n)


def run_import(corpus: Corpus, out: Path, options: ImportOptions, progress: Progress) -> None:
    """Make the store `out` from motions, or go on making it.

    Args:
        corpus: the motions, placed on the floor of the room.
        out: the store's folder; must not exist unless the same import made it.
        options: how to draw.
        progress: told after every chunk, in rows.

    Raises:
        BadInputError: `out` holds something else, or the disk is too small.
    """
    plan = {split: _plan(corpus, split, options) for split in SPLITS}
    made_from = _made_from(corpus, options)
    total = sum(len(rows) for rows in plan.values())
    if out.exists():
        _check_finished(out, made_from)
        progress(total, total, f"{out} was already made with these options")
        return
    partial = out.with_name(out.name + ".partial")
    with _exclusive(partial):
        try:
            note = _prepare(partial, made_from)
            _check_space(partial, plan, corpus=corpus, options=options)
            shards = _write_splits(
                partial,
                plan,
                corpus=corpus,
                options=options,
                progress=_Counter(progress, total, note),
            )
            _finish(partial, out, _metadata(corpus, options, made_from, shards))
        except OSError as error:
            raise _explain(error, partial) from None
        finally:
            _remove_if_useless(partial)


class _Counter:
    """Adds up rows for a `Progress`."""

    def __init__(self, progress: Progress, total: int, note: str):
        self._progress, self._total, self._note = progress, total, note
        self._done = 0
        progress(0, total, note)

    def add(self, rows: int, split: str) -> None:
        self._done += rows
        self._progress(self._done, self._total, split)


def _plan(corpus: Corpus, split: str, options: ImportOptions) -> _Rows:
    """Choose a split's frames and repeat each for every camera."""
    indices = [i for i, motion in enumerate(corpus.motions) if motion.split == split]
    if not indices:
        raise BadInputError(
            f"{corpus.format}: no motion falls into the split {split}; it takes more motions"
        )
    chosen = choose_frames([len(corpus.motions[i].frame_f) for i in indices], options.limit)
    position_f = np.concatenate(chosen)
    motion_f = np.repeat(indices, [len(frames) for frames in chosen])
    views = options.views
    return _Rows(
        motion_n=np.repeat(motion_f, views).astype(np.int32),
        position_n=np.repeat(position_f, views),
        camera_n=np.tile(np.arange(views, dtype=np.int32), len(motion_f)),
    )


def _made_from(corpus: Corpus, options: ImportOptions) -> dict[str, str | int | None]:
    """Return what decides the store's content, to compare imports by."""
    return {
        "format": corpus.format,
        "source_sha256": corpus.source_digest,
        **options.model_dump(exclude={"workers"}),
    }


def _check_finished(out: Path, made_from: Mapping[str, Any]) -> None:
    """Raise unless `out` is a finished store of the same import."""
    before = open_store(out).metadata.made_from
    differing = [key for key in made_from if before.get(key) != made_from[key]]
    if differing:
        key = differing[0]
        raise BadInputError(
            f"{out}: already holds a store made with {key} = {before.get(key)!r}, asked for "
            f"{made_from[key]!r}; remove it or name another --out"
        )


@contextmanager
def _exclusive(partial: Path) -> Iterator[None]:
    """Make a folder and hold it: no second import works in it at the same time."""
    try:
        partial.mkdir(parents=True, exist_ok=True)
        handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise BadInputError(f"{partial}: cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BadInputError(f"{partial}: another import is at work in it") from None
    finally:
        os.close(handle)


def _prepare(partial: Path, made_from: Mapping[str, Any]) -> str:
    """Empty the work folder unless the same import left it; return a note on that."""
    identity = {**made_from, "code": _code_digest()}
    journal = _read_journal(partial)
    if journal.get("identity") == identity:
        return f"continuing with {len(journal['shards'])} whole shards"
    left_over = any(partial.iterdir())
    for entry in partial.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    write_whole(partial / JOURNAL_FILE, json.dumps({"identity": identity, "shards": {}}))
    return "left-overs of a different import removed" if left_over else ""


def _read_journal(partial: Path) -> dict[str, Any]:
    try:
        journal = json.loads((partial / JOURNAL_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return journal if isinstance(journal, dict) else {}


def _code_digest() -> str:
    """Return a digest of this package's source: a new version starts an import afresh."""
    folder = Path(__file__).parent
    sources = b"".join(file.read_bytes() for file in sorted(folder.glob("*.py")))
    return hashlib.sha256(sources).hexdigest()


def _check_space(
    partial: Path, plan: Mapping[str, _Rows], *, corpus: Corpus, options: ImportOptions
) -> None:
    joints = len(corpus.layout.joints)
    needed = sum(
        len(rows) * row_bytes(options.image_size, joints, images=split != "prior")
        for split, rows in plan.items()
    )
    there = sum(file.stat().st_size for file in partial.rglob("*.arrow"))
    free = shutil.disk_usage(partial).free
    if needed - there + 2**20 > free:
        raise BadInputError(
            f"{partial.parent}: the store takes {needed / 1e6:,.0f} MB and {free / 1e6:,.0f} MB "
            "are free; make space, or use --limit, --views or --image-size"
        )


def _write_splits(
    partial: Path,
    plan: Mapping[str, _Rows],
    *,
    corpus: Corpus,
    options: ImportOptions,
    progress: _Counter,
) -> dict[str, tuple[Shard, ...]]:
    """Draw and write every shard that is not whole yet; return all shards by split."""
    journal = _read_journal(partial)
    whole = {name: Shard.model_validate(shard) for name, shard in journal["shards"].items()}
    wanted = [
        (f"{split}/{start // SHARD_ROWS:05d}.arrow", split, start)
        for split in SPLITS
        for start in range(0, len(plan[split]), SHARD_ROWS)
    ]
    missing = [place for place in wanted if not _is_whole(partial, whole.get(place[0]))]
    for file, split, _ in sorted(set(wanted) - set(missing)):
        progress.add(whole[file].rows, split)
    chunks = [
        _chunk(corpus, plan[split], split=split, start=first, options=options)
        for _, split, start in missing
        for first in range(start, min(start + SHARD_ROWS, len(plan[split])), CHUNK_ROWS)
    ]
    drawn = draw_chunks(chunks, workers=options.workers or _cores())
    try:
        for file, split, start in missing:
            rows = min(SHARD_ROWS, len(plan[split]) - start)
            columns = _gather(drawn, rows, split=split, progress=progress)
            whole[file] = write_shard(partial, file, columns)
            journal["shards"] = {name: shard.model_dump() for name, shard in whole.items()}
            write_whole(partial / JOURNAL_FILE, json.dumps(journal))
    finally:
        drawn.close()
    return {
        split: tuple(whole[file] for file, its_split, _ in wanted if its_split == split)
        for split in SPLITS
    }


def _is_whole(partial: Path, shard: Shard | None) -> bool:
    """Say whether a file is there as the journal has it."""
    if shard is None or not (partial / shard.file).is_file():
        return False
    return (partial / shard.file).stat().st_size == shard.size


def _chunk(corpus: Corpus, rows: _Rows, *, split: str, start: int, options: ImportOptions) -> Chunk:
    """Collect what a worker needs to draw up to `CHUNK_ROWS` rows of one shard."""
    end = min(start + CHUNK_ROWS, (start // SHARD_ROWS + 1) * SHARD_ROWS, len(rows))
    motion_n, position_n = rows.motion_n[start:end], rows.position_n[start:end]
    motions = [corpus.motions[i] for i in motion_n]
    pairs = list(zip(motions, position_n.tolist(), strict=True))
    return Chunk(
        layout=corpus.layout,
        split=split,
        level=options.level,
        seed=options.seed,
        image_size=options.image_size,
        joints_nj3=np.stack([motion.joints_fj3[at] for motion, at in pairs]),
        motion_names=tuple(motion.name for motion in motions),
        subject_names=tuple(corpus.subjects[motion.subject] for motion in motions),
        columns={
            "activity": np.asarray([motion.activity_f[at] for motion, at in pairs], np.int32),
            "subject": np.asarray([motion.subject for motion in motions], np.int32),
            "motion": motion_n,
            "camera": rows.camera_n[start:end],
            "frame": np.asarray([motion.frame_f[at] for motion, at in pairs], np.int32),
        },
    )


def _gather(
    drawn: Iterator[Mapping[str, NDArray[Any]]], rows: int, *, split: str, progress: _Counter
) -> dict[str, NDArray[Any]]:
    """Put the next chunks together to the columns of one shard."""
    columns: dict[str, NDArray[Any]] = {}
    done = 0
    while done < rows:
        chunk = next(drawn)
        size = len(chunk["motion"])
        for name, part in chunk.items():
            if name not in columns:
                columns[name] = np.empty((rows, *part.shape[1:]), dtype=part.dtype)
            columns[name][done : done + size] = part
        done += size
        progress.add(size, split)
    return columns


def _metadata(
    corpus: Corpus,
    options: ImportOptions,
    made_from: Mapping[str, str | int | None],
    shards: Mapping[str, Sequence[Shard]],
) -> Metadata:
    return Metadata(
        format=corpus.format,
        layout=corpus.layout.name,
        joints=corpus.layout.joints,
        limbs=corpus.layout.limbs,
        image_size=options.image_size,
        activities=corpus.activities,
        subjects=corpus.subjects,
        motions=tuple(motion.name for motion in corpus.motions),
        licence=corpus.licence,
        level=options.level,
        seed=options.seed,
        views=options.views,
        made_from=made_from,
        shards={split: tuple(files) for split, files in shards.items()},
    )


def _finish(partial: Path, out: Path, metadata: Metadata) -> None:
    """Turn the work folder into the store."""
    for file in partial.rglob("*.draft"):
        file.unlink()
    write_metadata(partial, metadata)
    partial.replace(out)  # the journal goes last: killed before this line, the import continues
    (out / JOURNAL_FILE).unlink()


def _explain(error: OSError, partial: Path) -> BadInputError:
    place = error.filename or partial
    if error.errno == errno.ENOSPC:
        return BadInputError(
            f"{place}: no space left on the disk; make some and give the same command again"
        )
    return BadInputError(f"{place}: {error.strerror or error}")


def _remove_if_useless(partial: Path) -> None:
    """Remove the work folder if no shard in it is whole."""
    if partial.is_dir() and not any(partial.rglob("*.arrow")):
        shutil.rmtree(partial, ignore_errors=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0))
