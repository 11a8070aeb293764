"""posetune: sweeps of complete pose-network trainings, none of them lost.

`cli` reads a sweep file, `execution` runs its trials on Ray, `study` remembers everything,
`tracking` shows it in MLflow, and a trainable knows none of them (it sees `posetune.api` only).

From Python:

    import posetune

    sweep = posetune.run_sweep("sweep.yaml", "first")   # as `posetune sweep` does
    sweep.trials().to_pandas()                          # a table, best trial first
    posetune.promote("first", "selfpose")               # as `posetune promote` does
    posetune.open("first").reports()                    # later, and from elsewhere
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posetune.promotion.request import Promotion
    from posetune.report.handle import Sweep
    from posetune.workflow.train import Training

__all__ = ["open", "promote", "run_sweep", "train"]

_Folder = str | os.PathLike[str] | None


def open(name: str, home: _Folder = None) -> Sweep:  # noqa: A001
    """Open a sweep to look at and to steer.

    Args:
        name: the sweep.
        home: the home folder (default: POSETUNE_HOME, or `runs`).

    Raises:
        BadInputError: there is no such sweep.
    """
    from posetune.report.handle import open_sweep

    return open_sweep(name, home)


def run_sweep(
    file: str | os.PathLike[str],
    name: str | None = None,
    *,
    store: str | None = None,
    home: _Folder = None,
    address: str | None = None,
    tracking: bool = True,
) -> Sweep:
    """Run the trials of a sweep until its budget is spent; the same call again continues it.

    Args:
        file: the sweep file.
        name: the sweep's name (default: the file's).
        store: prepared data, a folder or s3://...; it overrides the file's.
        home: the home folder (default: POSETUNE_HOME, or `runs`).
        address: a Ray cluster to join; without one, Ray is started on this machine.
        tracking: ship the sweep to MLflow while it runs.

    Returns:
        The sweep, to look at; `view().state` says how it ended.

    Raises:
        BadInputError: the file, the store or the cluster cannot be used; nothing was spent.
        RayNotStartedError: Ray does not start on this machine; nothing is lost.
        StudyLostError: the study database went away for too long; nothing is lost.
    """
    from posetune.workflow.sweep import run_sweep as run

    end = run(Path(file), name, store=store, home=_path(home), address=address, tracking=tracking)
    return open(end.view.name, home)


def train(
    file: str | os.PathLike[str],
    name: str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    store: str | None = None,
    home: _Folder = None,
    epochs: int | None = None,
    seed: int = 0,
    fresh: bool = False,
) -> Training:
    """Train one trial in this process: the sweep file's defaults, changed by `settings`.

    Args:
        file: the sweep file.
        name: the training's name (default: the file's); the same again continues it.
        settings: fields of the configuration by their dotted names, e.g. {"flow.depth": 8}.
        store: prepared data, a folder or s3://...; it overrides the file's.
        home: the home folder (default: POSETUNE_HOME, or `runs`).
        epochs: epochs to train (default: the file's max_epochs).
        seed: of the trial.
        fresh: forget an earlier training of this name.

    Returns:
        The training: its model's folder, its epochs with their metrics, and the baselines.

    Raises:
        BadInputError: the file, the store or a setting cannot be used.
        TrialFailedError: the training diverged or collapsed.
    """
    from posetune.workflow.train import train as run

    return run(
        Path(file),
        name,
        settings=settings,
        store=store,
        home=_path(home),
        epochs=epochs,
        seed=seed,
        fresh=fresh,
    )


def promote(
    name: str,
    model: str,
    *,
    alias: str = "candidate",
    seeds: int = 0,
    trial: int | None = None,
    epoch: int | None = None,
    store: str | None = None,
    home: _Folder = None,
) -> Promotion:
    """Register the best trial of a sweep and point an alias at it, if the gate holds.

    Args:
        name: the sweep.
        model: the registered model's name.
        alias: the alias to move; `candidate` has no gate.
        seeds: train the three best again with so many further seeds first.
        trial: number of the trial to promote (default: the best of those that reached the last
            rung that any has reached).
        epoch: the epoch to promote (default: the trial's best or last, whichever is better on the
            whole validation split).
        store: the sweep's data, if it is not where it was.
        home: the home folder (default: POSETUNE_HOME, or `runs`).

    Returns:
        What was decided; its `gate` is `refused` where the alias stayed.

    Raises:
        BadInputError: there is no such sweep, trial or epoch, or its checkpoint is not kept.
    """
    from posetune.workflow.promote import promote as run

    return run(
        name,
        model,
        alias=alias,
        seeds=seeds,
        trial=trial,
        epoch=epoch,
        store=store,
        home=_path(home),
    )


def _path(folder: _Folder) -> Path | None:
    return None if folder is None else Path(folder)
