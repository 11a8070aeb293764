"""Writes a trial's checkpoints whole to storage, and checks them when it reads them.

    checkpoints/<sweep>/stop              there while the driver asks its trials to hand over
    checkpoints/<sweep>/stop-<node>       the same for the trials on one node
    checkpoints/<sweep>/stuck-<trial>-<attempt>   there when a worker was killed because it hung
    checkpoints/<sweep>/<trial>/<epoch>-<attempt>-<random>/
        state/     what `Trainable.save` wrote
        model/     what `Trainable.export` wrote, after the last epoch
        figures/   what `Trainable.draw` wrote, after the last epoch

Only a checkpoint that is committed to the study counts; the name is unique, so a worker that
outlived its driver can never overwrite one that counts.
"""

from __future__ import annotations

import contextlib
import errno
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from posetune.api import Trainable
from posetune.storage import Storage, StorageError
from posetune.storage.digest import digest_folder
from posetune.study.records import CheckpointRecord

__all__ = [
    "StorageFullError",
    "drop_checkpoints",
    "drop_orphans",
    "log_file",
    "newest_intact",
    "stop_file",
    "stuck_file",
    "trial_folder",
    "write_checkpoint",
]


class StorageFullError(OSError):
    """Storage takes no checkpoint now: it is full or does not answer. A later try may succeed."""


def trial_folder(sweep: str, trial: int) -> str:
    """Return the folder of a trial's checkpoints, in storage."""
    return f"checkpoints/{sweep}/{trial:05d}"


def stop_file(sweep: str, node: str = "") -> str:
    """Return the file that asks a sweep's trials (on one node) to hand over, in storage."""
    return f"checkpoints/{sweep}/stop" + (f"-{node}" if node else "")


def stuck_file(sweep: str, trial: int, attempt: int) -> str:
    """Return the file that says why a worker is gone: its epoch showed no progress, in storage."""
    return f"checkpoints/{sweep}/stuck-{trial:05d}-{attempt}"


def log_file(sweep: str, trial: int) -> str:
    """Return the storage path of a trial's log: what its processes printed."""
    return f"logs/{sweep}/{trial:05d}.log"


def write_checkpoint(
    trainable: Trainable, storage: Storage, folder: str, *, attempt: int, epoch: int, last: bool
) -> CheckpointRecord:
    """Write a checkpoint and return what to commit.

    Args:
        trainable: the trial.
        storage: where to.
        folder: `trial_folder(...)`.
        attempt: the trial's attempt.
        epoch: epochs finished.
        last: whether the trial is complete; then the model and figures are written too.

    Raises:
        StorageFullError: storage takes nothing now.
    """
    name = f"{folder}/{epoch:05d}-{attempt}-{uuid.uuid4().hex[:8]}"
    parts = {"state": trainable.save}
    if last:
        parts |= {"model": trainable.export, "figures": trainable.draw}
    try:
        with storage.writing(name) as partial:
            for part, write in parts.items():
                (partial / part).mkdir()
                write(partial / part)
            digest = digest_folder(partial)
            size = sum(p.stat().st_size for p in partial.rglob("*") if p.is_file())
    except (OSError, SafetensorError) as error:
        if isinstance(error, StorageError):
            raise StorageFullError(str(error)) from error
        if _is_full(error):
            raise StorageFullError(
                f"no space left for a checkpoint at {storage.address}"
            ) from error
        raise
    return CheckpointRecord(attempt=attempt, epoch=epoch, folder=name, digest=digest, bytes=size)


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left" in str(error)  # safetensors wraps the system's error in its own


@contextmanager
def newest_intact(
    storage: Storage, records: Iterable[CheckpointRecord]
) -> Iterator[tuple[CheckpointRecord, Path] | None]:
    """Yield the first of `records` (newest first) that is whole in storage, with its folder."""
    for record in records:
        with storage.reading(record.folder) as folder:
            if folder is not None and digest_folder(folder) == record.digest:
                yield record, folder
                return
    yield None


def drop_checkpoints(storage: Storage, records: Iterable[CheckpointRecord]) -> None:
    """Delete checkpoints that nothing needs any more."""
    for record in records:
        _drop(storage, record.folder)


def drop_orphans(
    storage: Storage, sweep: str, committed: Iterable[CheckpointRecord], *, trial: int | None = None
) -> None:
    """Delete the checkpoints that dead attempts wrote but never committed to the study."""
    known = {record.folder for record in committed}
    trials = f"checkpoints/{sweep}"
    folders = (
        [f"{trials}/{child}" for child in storage.children(trials)]
        if trial is None
        else [trial_folder(sweep, trial)]
    )
    for folder in folders:
        for child in storage.children(folder):
            if f"{folder}/{child}" not in known:
                _drop(storage, f"{folder}/{child}")


def _drop(storage: Storage, name: str) -> None:
    # What cannot be deleted now is an orphan, which the next start of a driver deletes.
    with contextlib.suppress(StorageError):
        storage.remove(name)
