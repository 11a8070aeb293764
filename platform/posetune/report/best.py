"""Finds what there is to show of a sweep's best trial: its figures and an evaluation of it."""

from __future__ import annotations

from posetune.api import BadInputError, Progress, silent
from posetune.report.pages.page import BestTrial
from posetune.spec.registration import load_trainable
from posetune.storage import Storage, open_folder
from posetune.study.view import SweepView
from posetune.trial.exported import verified_model

__all__ = ["look_at_best"]


def look_at_best(view: SweepView, storage: Storage, progress: Progress = silent) -> BestTrial:
    """Return the figures of the best trial and its evaluation on the validation split.

    Both are of the epoch that counts (`objective.select`).

    A model or a store that is not there any more is no error: the result says what is missing.

    Args:
        view: the sweep.
        storage: where the sweep's checkpoints are.
        progress: hears how many frames are evaluated.
    """
    trial = view.best
    if trial is None:
        return BestTrial(missing="no trial has reported a value")
    trainable = load_trainable(view.spec.trainable)
    figures: dict[str, bytes] = {}
    try:
        with verified_model(storage, view, trial, trainable=trainable, progress=progress) as model:
            drawn = sorted(model.figures.glob("*.png"))
            figures = {file.name: file.read_bytes() for file in drawn}
            store = open_folder(view.store)
            if trainable.describe_store(store).digest != view.store_digest:
                raise BadInputError(f"store {view.store} has changed since the sweep ran on it")
            evaluation = trainable.evaluate(model.folder, store, "val", progress)
    except BadInputError as error:
        return BestTrial(trial.number, figures=figures, missing=str(error))
    return BestTrial(trial.number, evaluation, figures)
