"""Finds what a trial exported, and makes sure that it is what the study remembers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from posetune.api import BadInputError
from posetune.storage import Storage
from posetune.storage.digest import digest_folder
from posetune.study.states import TrialState
from posetune.study.view import SweepView, TrialView

__all__ = ["verified_model"]


@contextmanager
def verified_model(
    storage: Storage, view: SweepView, trial: TrialView
) -> Iterator[tuple[Path, str]]:
    """Give the folder of a trial's exported model, and the digest of its checkpoint.

    Args:
        storage: where the sweep's checkpoints are.
        view: the sweep.
        trial: one of its trials.

    Raises:
        BadInputError: the trial has none, it is missing, or it is damaged.
    """
    if trial.checkpoint is None or trial.state != TrialState.COMPLETE:
        raise BadInputError(
            f"sweep {view.name}, trial {trial.number}: is {trial.state} after {trial.epochs} "
            "epochs and has exported no model; complete trials have one "
            f"(posetune show {view.name})"
        )
    place = trial.checkpoint.folder
    said = f"sweep {view.name}, trial {trial.number}: its checkpoint {storage.where(place)}"
    with storage.reading(place) as folder:
        if folder is None or not (folder / "model").is_dir():
            raise BadInputError(
                f"{said} has no model; is the storage folder the one that the sweep wrote to "
                "(POSETUNE_STORAGE, --home)?"
            )
        found = digest_folder(folder)
        if found != trial.checkpoint.digest:
            raise BadInputError(
                f"{said} is damaged: digest {found[:12]}, the study says "
                f"{trial.checkpoint.digest[:12]}. Restore it from a backup; it is not used."
            )
        yield folder / "model", found
