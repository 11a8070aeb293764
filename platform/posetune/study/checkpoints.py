"""Finds what a trial exported, and makes sure that it is what the study remembers."""

from __future__ import annotations

from pathlib import Path

from posetune.api import BadInputError
from posetune.digest import digest_folder
from posetune.study.view import SweepView, TrialView

__all__ = ["verified_model"]


def verified_model(storage: Path, view: SweepView, trial: TrialView) -> tuple[Path, str]:
    """Return the folder of a trial's exported model, and the digest of its checkpoint.

    Args:
        storage: the storage folder.
        view: the sweep.
        trial: one of its trials.

    Raises:
        BadInputError: the trial has none, it is missing, or it is damaged.
    """
    if trial.checkpoint is None or trial.state != "COMPLETE":
        raise BadInputError(
            f"sweep {view.name}, trial {trial.number}: is {trial.state} after {trial.epochs} "
            "epochs and has exported no model; complete trials have one "
            f"(posetune show {view.name})"
        )
    folder = storage / trial.checkpoint.folder
    place = f"sweep {view.name}, trial {trial.number}: its checkpoint {folder}"
    if not (folder / "model").is_dir():
        raise BadInputError(
            f"{place} has no model; is the storage folder the one that the sweep wrote to "
            "(POSETUNE_STORAGE, --home)?"
        )
    found = digest_folder(folder)
    if found != trial.checkpoint.digest:
        raise BadInputError(
            f"{place} is damaged: digest {found[:12]}, the study says "
            f"{trial.checkpoint.digest[:12]}. Restore it from a backup; it is not used."
        )
    return folder / "model", found
