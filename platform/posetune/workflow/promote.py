"""Registers a sweep's best model and moves an alias, as `posetune promote` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from posetune.api import BadInputError, Progress, silent
from posetune.home import Home
from posetune.promotion.judging.finalists import retrain_finalists
from posetune.provenance import this_person
from posetune.spec.home_file import read_home_file
from posetune.spec.registration import load_trainable
from posetune.study.reading import read_sweep
from posetune.study.tables.database import open_database

if TYPE_CHECKING:
    from posetune.promotion.request import Promotion

__all__ = ["promote"]


def promote(
    name: str,
    model: str,
    *,
    alias: str = "candidate",
    seeds: int = 0,
    store: str | None = None,
    force_reason: str | None = None,
    out: Path | None = None,
    trial: int | None = None,
    epoch: int | None = None,
    home: Path | None = None,
    progress: Progress = silent,
) -> Promotion:
    """Register the best trial of a sweep and point an alias at it, if the gate holds.

    Args:
        name: the sweep.
        model: the registered model's name.
        alias: the alias to move; `candidate` has no gate.
        seeds: train the three best again with so many further seeds first.
        store: the sweep's data, if it is not where it was.
        force_reason: move the alias without a gate, and record this reason.
        out: folder for the tables and pictures of the test split, which the gate opens anyway.
        trial: number of the trial to promote (default: the best of those that reached the last
            rung that any has reached).
        epoch: the epoch to promote (default: the trial's best or last, whichever is better on the
            whole validation split).
        home: where the study is (default: POSETUNE_HOME, or `runs`).
        progress: is told how far the evaluation is.

    Returns:
        What was decided; its `gate` is `refused` where the alias stayed.

    Raises:
        BadInputError: there is no such sweep, trial or epoch, or its checkpoint is not kept.
    """
    if seeds and trial is not None:
        raise BadInputError(
            "--trial and --seeds exclude each other: the seeds choose the trial; give one of them"
        )
    if force_reason is not None and not force_reason.strip():
        raise BadInputError("--force and --reason TEXT go together: say why the gate is not asked")
    if out is not None and (alias == "candidate" or force_reason is not None):
        raise BadInputError(
            "--out writes what the gate reads of the test split, but this promotion asks no gate; "
            "give --alias champion without --force, or use posetune evaluate"
        )
    resolved = Home.resolve(home)
    # Refused now rather than after a look at the test split.
    file = read_home_file(resolved.folder)
    database = open_database(resolved.database, create=False)
    view = read_sweep(database, name)

    # Importing MLflow takes seconds, and most bad input was refused by now.
    from posetune.promotion.decision import promote as decide
    from posetune.promotion.request import Request

    trainable = load_trainable(view.spec.trainable)
    finalists = []
    if seeds:
        finalists = retrain_finalists(
            view,
            resolved,
            trainable=trainable,
            seeds=seeds,
            store=store or view.store,
            progress=progress,
        )
    request = Request(
        sweep=name,
        model=model,
        alias=alias,
        store=store,
        force=force_reason,
        finalists=finalists,
        out=out,
        trial=trial,
        epoch=epoch,
        by=this_person(),
        approvals=file.approvals(alias),
        cost_per_gpu_hour=file.cost_per_gpu_hour,
        currency=file.currency,
    )
    return decide(database, resolved, request, trainable=trainable, progress=progress)
