"""Makes a store from any importer's `Source`: jobs in worker processes make the rows of its files.

Read `run_import` first. Work happens in `OUT.partial`: worker processes make rows, and this process
writes them, shard by shard. A journal there names the shards that are finished and what was left
out of them. The same command again keeps those and continues; the folder becomes `OUT` at the very
end. What is made depends on the options and the row alone, never on the workers.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posetune.api import BadInputError, Progress
from selfpose.data.bone_ratios import LEAST_POSES, measure_bone_ratios, read_bone_ratios
from selfpose.data.metadata import SPLITS, Metadata, write_metadata
from selfpose.data.pictures.encodings import encode_pictures
from selfpose.data.shards import SHARD_ROWS, Columns, Shard, column_bytes, join_columns, write_shard
from selfpose.data.skipped import check_strict, write_account
from selfpose.data.sources import ImportJob, ImportOptions, Made, Skip, Source
from selfpose.data.store import Split, open_store
from selfpose.data.workers import run_jobs
from selfpose.whole_files import write_whole

__all__ = ["ImportOptions", "run_import"]

JOURNAL_FILE = "import.json"
JOB_ROWS = 64
"""Number of rows that one job makes."""
SAMPLED_ROWS = {"raw": 1, "jpeg": 8}
"""Number of rows that are made to forecast the store's size, by encoding. One is enough for `raw`,
because all its rows have the same size."""


@dataclass(frozen=True)
class _Part:
    """Describes a shard that is to be made: some of a split's rows, bad ones included."""

    file: str
    split: str
    start: int
    end: int


@dataclass(frozen=True)
class _Done:
    """Says which rows of a part were written and which were left out."""

    shard: Shard | None
    """The file that was written; None if every row of the part was bad."""
    skipped: tuple[Skip, ...]
    """The items that were left out."""


def run_import(source: Source, out: Path, options: ImportOptions, progress: Progress) -> None:
    """Make the store `out` from a source, or continue an import that was broken off.

    Args:
        source: the rows of every split and how to make them.
        out: the store's folder; it must not exist unless the same import made it.
        options: how to make the store.
        progress: hears after every job how many rows are done.

    Raises:
        BadInputError: a split has no rows, `out` holds something else, the disk is too small, or
            an item is bad and the options are strict.
    """
    _check_rows(source)
    if options.strict:
        check_strict(source.skipped)
    if options.bone_ratios is not None:
        read_bone_ratios(options.bone_ratios, source.layout)
    made_from = _made_from(source, options)
    total = sum(source.rows.values())
    if out.exists():
        _check_finished(out, made_from, options)
        progress(total, total, f"{out} was already made with these options")
        return
    partial = out.with_name(out.name + ".partial")
    with _exclusive(partial):
        try:
            note = _prepare(partial, made_from)
            size = _check_space(partial, source, options)
            done = _write_parts(
                partial, source, options=options, progress=progress, note=f"{note}{size}"
            )
            _finish(
                partial,
                out,
                _metadata(partial, source, options=options, made_from=made_from, done=done),
            )
        except OSError as error:
            raise _explain(error, partial) from None
        finally:
            _remove_if_useless(partial)


def _check_rows(source: Source) -> None:
    """Raise if nothing is left, or if a split has no rows though nothing was left out of it.

    A split that lost all its rows to bad items stays empty, because one bad item must not refuse
    all the others; `data info` says so.
    """
    if not any(source.rows.values()):
        first = source.skipped[0] if source.skipped else None
        why = "no data was found" if first is None else f"the first is {first.item}: "
        raise BadInputError(
            f"{source.format}: nothing can be imported; {why}{first.reason if first else ''}"
        )
    halves = {"train", "prior"}  # a bad item of one sequence is written down for its first half
    bad = {skip.split for skip in source.skipped}
    bad |= halves if bad & halves else set()
    for split in SPLITS:
        if not source.rows.get(split) and split not in bad:
            raise BadInputError(
                f"{source.format}: no row belongs to split {split}; import more data"
            )


def _made_from(source: Source, options: ImportOptions) -> dict[str, str | int | None]:
    """Return everything that decides the store's content, by which imports are compared."""
    return {
        "format": source.format,
        "source_sha256": source.digest,
        **options.model_dump(mode="json", exclude={"workers"}),
    }


def _check_finished(out: Path, made_from: Mapping[str, Any], options: ImportOptions) -> None:
    """Raise unless `out` is a finished store of the same import.

    What could not be given when it was made is as it is by default now.
    """
    added = {name: field.default for name, field in type(options).model_fields.items()}
    before = {**added, **open_store(out).metadata.made_from}
    differing = [key for key in made_from if before.get(key) != made_from[key]]
    if differing:
        key = differing[0]
        raise BadInputError(
            f"{out}: already holds a store made with {key} = {before.get(key)!r}, asked for "
            f"{made_from[key]!r}; remove it or name another --out"
        )


@contextmanager
def _exclusive(partial: Path) -> Iterator[None]:
    """Make a folder and lock it during a block, so that no second import works in it."""
    try:
        partial.mkdir(parents=True, exist_ok=True)
        handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise BadInputError(f"{partial}: cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BadInputError(
            f"{partial}: another import writes to this folder; wait for it, or name another --out"
        ) from None
    finally:
        os.close(handle)


def _prepare(partial: Path, made_from: Mapping[str, Any]) -> str:
    """Empty the work folder unless the same import left it; return a note about it for people."""
    identity = {**made_from, "code": _code_digest()}
    journal = _read_journal(partial)
    if journal.get("identity") == identity:
        return f"continuing with {len(journal['parts'])} whole shards; "
    left_over = any(partial.iterdir())
    for entry in partial.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    write_whole(partial / JOURNAL_FILE, json.dumps({"identity": identity, "parts": {}}))
    return "left-overs of a different import removed; " if left_over else ""


def _read_journal(partial: Path) -> dict[str, Any]:
    try:
        journal = json.loads((partial / JOURNAL_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return journal if isinstance(journal, dict) else {}


def _code_digest() -> str:
    """Return a digest of this package's source, so that another version starts an import anew."""
    folder = Path(__file__).parent
    sources = b"".join(file.read_bytes() for file in sorted(folder.glob("*.py")))
    return hashlib.sha256(sources).hexdigest()


def _check_space(partial: Path, source: Source, options: ImportOptions) -> str:
    """Forecast the store's size from a few rows and return it in words.

    Raises:
        BadInputError: the disk has too little space.
    """
    needed = sum(_row_bytes(source, split, options) * rows for split, rows in source.rows.items())
    there = sum(file.stat().st_size for file in partial.rglob("*.arrow"))
    free = shutil.disk_usage(partial).free
    if needed - there + 2**20 > free:
        raise BadInputError(
            f"{partial.parent}: the store takes about {needed / 1e6:,.0f} MB and "
            f"{free / 1e6:,.0f} MB are free; make space, or give --limit, a smaller --image-size "
            "or --encoding jpeg"
        )
    return f"about {needed / 1e6:,.1f} MB"


def _row_bytes(source: Source, split: str, options: ImportOptions) -> float:
    """Return the mean number of bytes of a few rows of a split, which are made for this."""
    rows, wanted = source.rows[split], SAMPLED_ROWS[options.encoding]
    sizes: list[int] = []
    if not rows:
        return 0.0
    for i in range(4 * wanted):
        at = (2 * i + 1) * rows // (8 * wanted)
        columns = _EncodedJob(source.job(split, at, at + 1), options)().columns
        if len(columns["motion"]):
            sizes.append(column_bytes(columns))
        if len(sizes) == wanted:
            break
    return sum(sizes) / max(len(sizes), 1)


@dataclass(frozen=True)
class _EncodedJob:
    """Runs a job and encodes its pictures, both in the worker."""

    job: ImportJob
    options: ImportOptions

    def __call__(self) -> Made:
        made = self.job()
        if self.options.strict:
            check_strict(made.skipped)
        if self.options.encoding == "raw":
            return made
        columns = encode_pictures(made.columns, image_size=self.options.image_size)
        return Made(columns, made.skipped)


def _write_parts(
    partial: Path, source: Source, *, options: ImportOptions, progress: Progress, note: str
) -> dict[str, _Done]:
    """Make and write every shard that is not finished; return what became of every part."""
    journal = _read_journal(partial)
    parts = [
        _Part(f"{split}/{i:05d}.arrow", split, start, min(start + SHARD_ROWS, source.rows[split]))
        for split in SPLITS
        for i, start in enumerate(range(0, source.rows.get(split, 0), SHARD_ROWS))
    ]
    done = {name: _from_journal(entry) for name, entry in journal["parts"].items()}
    done = {name: part for name, part in done.items() if _is_whole(partial, part.shard)}
    missing = [part for part in parts if part.file not in done]
    counter = _Counter(progress, parts, missing, note)
    spans = [
        (part.split, start, min(start + JOB_ROWS, part.end))
        for part in missing
        for start in range(part.start, part.end, JOB_ROWS)
    ]
    jobs = (_EncodedJob(source.job(*span), options) for span in spans)
    made = run_jobs(jobs, workers=min(options.workers or _cores(), len(spans)))
    try:
        for part in missing:
            done[part.file] = _write_part(partial, part, made=made, counter=counter)
            journal["parts"] = {name: _to_journal(entry) for name, entry in done.items()}
            write_whole(partial / JOURNAL_FILE, json.dumps(journal))
    finally:
        made.close()
    return {part.file: done[part.file] for part in parts}


def _write_part(partial: Path, part: _Part, *, made: Iterator[Made], counter: _Counter) -> _Done:
    """Write one shard from the rows that the next jobs made."""
    columns: list[Columns] = []
    skipped: list[Skip] = []
    for start in range(part.start, part.end, JOB_ROWS):
        result = next(made)
        columns.append(result.columns)
        skipped += result.skipped
        counter.add(min(JOB_ROWS, part.end - start), part.split, skipped=len(result.skipped))
    joined = join_columns(columns)
    rows = len(joined["motion"])
    return _Done(write_shard(partial, part.file, joined) if rows else None, tuple(skipped))


class _Counter:
    """Counts rows for a `Progress`, beginning with those of shards that were finished before."""

    def __init__(
        self, progress: Progress, parts: list[_Part], missing: list[_Part], note: str
    ) -> None:
        rows = [sum(part.end - part.start for part in some) for some in (parts, missing)]
        self._progress, self._total, self._done = progress, rows[0], rows[0] - rows[1]
        self._skipped = 0
        progress(self._done, self._total, note)

    def add(self, rows: int, split: str, *, skipped: int) -> None:
        self._done += rows
        self._skipped += skipped
        note = f"{split}, {self._skipped} skipped" if self._skipped else split
        self._progress(self._done, self._total, note)


def _to_journal(done: _Done) -> dict[str, Any]:
    shard = None if done.shard is None else done.shard.model_dump()
    return {"shard": shard, "skipped": [list(skip) for skip in done.skipped]}


def _from_journal(entry: Mapping[str, Any]) -> _Done:
    shard = None if entry["shard"] is None else Shard.model_validate(entry["shard"])
    return _Done(shard, tuple(Skip(*skip) for skip in entry["skipped"]))


def _is_whole(partial: Path, shard: Shard | None) -> bool:
    """Return whether a part's file is there with the size that the journal has."""
    if shard is None:
        return True
    file = partial / shard.file
    return file.is_file() and file.stat().st_size == shard.size


def _metadata(
    partial: Path,
    source: Source,
    *,
    options: ImportOptions,
    made_from: Mapping[str, str | int | None],
    done: Mapping[str, _Done],
) -> Metadata:
    """Write the table of what was left out, and return the store's metadata."""
    found = (skip for part in done.values() for skip in part.skipped)
    skipped = [*source.excluded, *source.skipped, *found]
    counts, account_sha256 = write_account(partial, skipped)
    shards = {
        split: tuple(
            part.shard
            for file, part in done.items()
            if file.startswith(f"{split}/") and part.shard is not None
        )
        for split in SPLITS
    }
    if not any(shards.values()):
        _refuse_empty(partial, skipped)
    metadata = Metadata(
        format=source.format,
        layout=source.layout.name,
        joints=source.layout.joints,
        limbs=source.layout.limbs,
        image_size=options.image_size,
        activities=source.activities,
        subjects=source.subjects,
        motions=source.motions,
        licence=source.licence,
        seed=options.seed,
        encoding=options.encoding,
        facts=source.facts,
        skipped=counts,
        skipped_sha256=account_sha256,
        made_from=made_from,
        shards=shards,
    )
    return _with_bone_ratios(partial, metadata, source, options)


def _with_bone_ratios(
    partial: Path, metadata: Metadata, source: Source, options: ImportOptions
) -> Metadata:
    """Return the metadata with the lengths of limbs that were given, or are found in the shards."""
    ratios: tuple[float, ...] = ()
    origin = "the layout's own: too few 2D poses of the prior tell them"
    prior = Split(partial, "prior", metadata)
    if options.bone_ratios is not None:
        ratios, origin = read_bone_ratios(options.bone_ratios, source.layout), "as given"
    elif len(prior) >= LEAST_POSES:
        ratios = measure_bone_ratios(prior.joints_2d, source.layout)
        origin = "measured on the 2D poses of the prior" if ratios else origin
    facts = {**metadata.facts, "bone ratios": ", ".join([*map(str, ratios), origin])}
    return metadata.model_copy(update={"bone_ratios": ratios, "facts": facts})


def _refuse_empty(partial: Path, skipped: list[Skip]) -> None:
    raise BadInputError(
        f"{partial}: every item is bad; the first is {skipped[0].item}: {skipped[0].reason}; mend "
        "the data and give the same command again"
    )


def _finish(partial: Path, out: Path, metadata: Metadata) -> None:
    """Turn the work folder into the store."""
    for file in partial.rglob(".*.partial"):
        file.unlink()
    write_metadata(partial, metadata)
    # The journal is deleted last: an import that is killed before this line can be continued.
    partial.replace(out)
    (out / JOURNAL_FILE).unlink()


def _explain(error: OSError, partial: Path) -> BadInputError:
    place = error.filename or partial
    if error.errno == errno.ENOSPC:
        return BadInputError(
            f"{place}: no space left on the disk; make some and give the same command again"
        )
    return BadInputError(f"{place}: {error.strerror or error}")


def _remove_if_useless(partial: Path) -> None:
    """Remove the work folder if no shard in it is finished."""
    if partial.is_dir() and not any(partial.rglob("*.arrow")):
        shutil.rmtree(partial, ignore_errors=True)


@functools.cache
def _cores() -> int:
    return len(os.sched_getaffinity(0))
