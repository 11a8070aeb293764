"""Gives the exported model of an epoch of a trial, and makes sure that it is the trial's.

A trial exports its model after its last epoch alone. The model of any other epoch whose checkpoint
is kept is made when it is asked for: the trial is built again in this process, without a GPU, loads
the checkpoint and exports.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from posetune.api import BadInputError, Progress, Trainable, silent
from posetune.spec.sweep import Resources
from posetune.storage import Folder, Storage
from posetune.storage.digest import digest_folder
from posetune.storage.store_place import StorePlace
from posetune.study.records import CheckpointRecord
from posetune.study.view import SweepView, TrialView
from posetune.trial.run import Assignment, StoreChangedError, TrialRun

__all__ = ["ExportedModel", "verified_model"]


@dataclass(frozen=True)
class ExportedModel:
    """The exported model of one epoch of a trial."""

    folder: Path
    """The folder with the model's files."""
    figures: Path
    """The folder with the figures of this epoch."""
    epoch: int
    digest: str
    """The digest of the checkpoint that the model belongs to."""


@contextmanager
def verified_model(
    storage: Storage,
    view: SweepView,
    trial: TrialView,
    *,
    trainable: type[Trainable],
    epoch: int | None = None,
    store: str | None = None,
    progress: Progress = silent,
) -> Iterator[ExportedModel]:
    """Give the exported model of a trial, for the length of a block.

    Args:
        storage: where the sweep's checkpoints are.
        view: the sweep.
        trial: one of its trials.
        trainable: the class that the sweep file names.
        epoch: the epoch; None takes the one that counts (`objective.select`).
        store: address of the sweep's data, if it is not where the sweep had it.
        progress: hears how far stages are that have to be built again.

    Raises:
        BadInputError: the epoch's checkpoint is not kept, is missing or damaged, or the model
            cannot be made of it here.
    """
    record = _find_checkpoint(view, trial, epoch)
    with tempfile.TemporaryDirectory(prefix="posetune-export-") as scratch:
        copies = Folder(Path(scratch))
        folder = copies.root / record.folder
        _copy(storage, view, trial, record=record, to=folder)
        if not (folder / "model").is_dir():
            assignment = _assignment(
                storage, view, trial, record=record, checkpoints_in=copies, store=store
            )
            folder = copies.root / "exported"
            _export(trainable, assignment, folder, progress)
        yield ExportedModel(folder / "model", folder / "figures", record.epoch, record.digest)


def _copy(
    storage: Storage, view: SweepView, trial: TrialView, *, record: CheckpointRecord, to: Path
) -> None:
    """Copy a checkpoint, and make sure that the copy is what the study says.

    The driver of a running sweep deletes checkpoints meanwhile, so everything else is done with the
    copy.

    Raises:
        BadInputError: the checkpoint is missing, is damaged, or was deleted meanwhile.
    """
    said = f"sweep {view.name}, trial {trial.number}: its checkpoint {storage.where(record.folder)}"
    found = ""
    fault: OSError | None = None
    try:
        with storage.reading(record.folder) as folder:
            if folder is None:
                raise BadInputError(
                    f"{said} is not there; give the storage that the sweep wrote to "
                    "(POSETUNE_STORAGE, --home)"
                )
            shutil.copytree(folder, to)
            found = digest_folder(to)
    except OSError as error:
        fault = error
    if fault is None and found == record.digest:
        return
    time.sleep(storage.poll_s)  # whoever is deleting it needs a moment
    if not storage.children(record.folder):
        raise BadInputError(_was_deleted(said)) from fault
    if fault is not None:
        raise BadInputError(f"{said} cannot be copied to {to.parent}: {fault}") from fault
    raise BadInputError(
        f"{said} is damaged: digest {found[:12]}, the study says {record.digest[:12]}. Restore it "
        "from a backup; it is not used."
    )


def _was_deleted(said: str) -> str:
    return (
        f"{said} was deleted meanwhile by the sweep's driver, which no longer needs it; give the "
        "command again"
    )


def _find_checkpoint(view: SweepView, trial: TrialView, epoch: int | None) -> CheckpointRecord:
    """Return the checkpoint of an epoch, or of the one that counts.

    Raises:
        BadInputError: there was no such epoch, or its checkpoint is not kept.
    """
    said = f"sweep {view.name}, trial {trial.number}"
    if epoch is None:
        if trial.chosen is None:
            raise BadInputError(
                f"{said}: is {trial.state} after {trial.epochs} epochs and has reported no value, "
                f"so it has no model (posetune show {view.name})"
            )
        epoch = trial.chosen.epoch
    if not 1 <= epoch <= trial.epochs:
        raise BadInputError(f"{said}: has no epoch {epoch}; it has reported {trial.epochs}")
    found = trial.checkpoint_of(epoch)
    if found is None:
        kept = [str(saved.epoch) for saved in trial.checkpoints if saved.is_whole]
        raise BadInputError(
            f"{said}: the checkpoint of epoch {epoch} is gone; "
            f"{'kept is epoch ' + ', '.join(kept) if kept else 'none of it is kept'}. "
            f"{_rules(view)}"
        )
    return found


def _rules(view: SweepView) -> str:
    """Return which checkpoints the sweep keeps, in words."""
    if not view.keeps_best:
        return (
            "The sweep was begun before best epochs were kept: a trial keeps its newest, and one "
            "that was cut or failed keeps none. A new sweep keeps the best ones "
            "(`keep: {best: N}` in its sweep file)"
        )
    return (
        "A trial keeps its best and its newest; one that was cut or failed only while it is "
        f"among the sweep's best {view.spec.keep.best}, which `keep: {{best: N}}` in the sweep "
        "file of a new sweep raises"
    )


def _assignment(
    storage: Storage,
    view: SweepView,
    trial: TrialView,
    *,
    record: CheckpointRecord,
    checkpoints_in: Storage,
    store: str | None,
) -> Assignment:
    """Return the trial as it stood at a checkpoint, without a GPU and in one process."""
    resources = Resources(cpu=view.spec.resources.cpu)
    return Assignment(
        sweep=view.name,
        trial=trial.number,
        attempt=trial.attempts,
        seed=trial.seed,
        params=trial.params,
        spec=view.spec.model_copy(update={"resources": resources}),
        store=StorePlace(store or view.store, view.store_digest),
        storage=storage,
        checkpoints_in=checkpoints_in,
        checkpoints=(record,),
        stage_keys={stage: (key,) for stage, key in trial.stages.items()},
    )


def _export(
    trainable: type[Trainable], assignment: Assignment, out: Path, progress: Progress
) -> None:
    """Build a trial again at its checkpoint, and write its model and figures below `out`."""
    (record,) = assignment.checkpoints
    said = f"sweep {assignment.sweep}, trial {assignment.trial}"
    try:
        run = TrialRun(trainable(), assignment, progress)
    except StoreChangedError as error:
        raise BadInputError(
            f"{said}: the model of epoch {record.epoch} has to be made of its checkpoint, which "
            f"needs the sweep's data (digest {assignment.store.digest[:12]}), and that is not at "
            f"{assignment.store.address}; name where it is with --store"
        ) from error
    try:
        if run.epoch != record.epoch:  # it would be a model of other weights
            raise BadInputError(_was_deleted(f"{said}: the checkpoint of epoch {record.epoch}"))
        for part, write in (("model", run.trainable.export), ("figures", run.trainable.draw)):
            (out / part).mkdir(parents=True)
            write(out / part)
    finally:
        run.close()
