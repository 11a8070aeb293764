"""Checkpoints below the storage folder: written whole under a name used once, checked when read.

    checkpoints/<sweep>/stop              there while the driver asks its trials to hand over
    checkpoints/<sweep>/<trial>/<epoch>-<attempt>-<random>/
        state/     what `Trainable.save` wrote
        model/     what `Trainable.export` wrote, after the last epoch
        figures/   what `Trainable.draw` wrote, after the last epoch

Only a checkpoint that is committed to the study counts; the name is unique, so a worker that
outlived its driver can never overwrite one that counts.
"""

from __future__ import annotations

import errno
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError

from posetune.api import Trainable
from posetune.digest import digest_folder
from posetune.study.journal import CheckpointRecord

__all__ = [
    "STOP_FILE",
    "StorageFullError",
    "drop_checkpoints",
    "drop_orphans",
    "log_file",
    "newest_intact",
    "trial_folder",
    "write_checkpoint",
]


STOP_FILE = "stop"


class StorageFullError(OSError):
    """There is no space for a checkpoint; it may be tried again when some was made."""


def trial_folder(sweep: str, trial: int) -> Path:
    """Return the folder of a trial's checkpoints, below the storage folder."""
    return Path("checkpoints") / sweep / f"{trial:05d}"


def log_file(sweep: str, trial: int) -> Path:
    """Return the file of what a trial's processes print, below the storage folder."""
    return Path("logs") / sweep / f"{trial:05d}.log"


def write_checkpoint(
    trainable: Trainable, storage: Path, folder: Path, *, attempt: int, epoch: int, last: bool
) -> CheckpointRecord:
    """Write a checkpoint and return what to commit.

    Args:
        trainable: the trial.
        storage: the storage folder.
        folder: `trial_folder(...)`.
        attempt: the trial's attempt.
        epoch: epochs finished.
        last: whether the trial is complete; then the model and figures are written too.
    """
    name = f"{epoch:05d}-{attempt}-{uuid.uuid4().hex[:8]}"
    partial = storage / folder / f"{name}.partial"
    parts = {"state": trainable.save}
    if last:
        parts |= {"model": trainable.export, "figures": trainable.draw}
    try:
        for part, write in parts.items():
            (partial / part).mkdir(parents=True)
            write(partial / part)
        record = CheckpointRecord(
            attempt=attempt,
            epoch=epoch,
            folder=(folder / name).as_posix(),
            digest=digest_folder(partial),
            bytes=sum(p.stat().st_size for p in partial.rglob("*") if p.is_file()),
        )
        partial.replace(storage / folder / name)
    except (OSError, SafetensorError) as error:
        if _is_full(error):
            raise StorageFullError(f"no space left for a checkpoint at {storage}") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return record


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left" in str(error)  # safetensors wraps the system's error in its own


def newest_intact(
    storage: Path, records: Iterable[CheckpointRecord]
) -> tuple[CheckpointRecord, Path] | None:
    """Return the first of `records` (newest first) that is whole on disk, with its folder."""
    for record in records:
        folder = storage / record.folder
        if folder.is_dir() and digest_folder(folder) == record.digest:
            return record, folder
    return None


def drop_checkpoints(storage: Path, records: Iterable[CheckpointRecord]) -> None:
    """Delete checkpoints that nothing needs any more."""
    for record in records:
        shutil.rmtree(storage / record.folder, ignore_errors=True)


def drop_orphans(
    storage: Path, sweep: str, committed: Iterable[CheckpointRecord], *, trial: int | None = None
) -> None:
    """Delete what dead attempts of a trial, or of all, wrote but never committed."""
    known = {storage / record.folder for record in committed}
    everything = storage / trial_folder(sweep, trial or 0)
    found = everything.parent.glob("*/*") if trial is None else everything.glob("*")
    for folder in found:
        if folder not in known:
            shutil.rmtree(folder, ignore_errors=True)
