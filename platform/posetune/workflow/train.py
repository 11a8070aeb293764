"""Trains one trial in this process, without Ray, as `posetune train` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from posetune.api import BadInputError, Progress, Trainable, silent
from posetune.home import Home, check_name
from posetune.spec.loading import configure, default_params, load_sweep
from posetune.spec.sweep import SweepSpec
from posetune.trial.baselines import ask_baselines
from posetune.trial.run import Started
from posetune.trial.single import SingleEpoch, SingleTrial, forget_single, train_single
from posetune.workflow.stores import find_store

__all__ = ["Training", "train"]


@dataclass
class Training:
    """What `train` has trained in this process."""

    params: dict[str, Any]
    """The searched fields and their values."""
    objective: str
    """The metric that the sweep file optimises."""
    max_epochs: int
    """The epochs of a complete training."""
    store: str
    """Address of the data."""
    model: str = ""
    """Where the exported model is; empty until it was trained."""
    epochs: list[dict[str, Any]] = field(default_factory=list)
    """For each epoch, also those of earlier calls: its number, its seconds and its metrics."""
    baselines: dict[str, float] = field(default_factory=dict)
    """Values of the trivial baselines, in the objective."""


def train(
    file: Path,
    name: str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    store: str | None = None,
    home: Path | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    fresh: bool = False,
    on_start: Callable[[Training], None] = lambda training: None,
    on_epoch: Callable[[Training], None] = lambda training: None,
    progress: Progress = silent,
) -> Training:
    """Train one trial: the sweep file's defaults, changed by `settings`.

    The same call again continues from the last epoch.

    Args:
        file: the sweep file.
        name: the training's name (default: the file's).
        settings: fields of the configuration by their dotted names, e.g. {"flow.depth": 8}.
        store: prepared data, a folder or s3://...; it overrides the file's.
        home: where checkpoints and models go (default: POSETUNE_HOME, or `runs`).
        epochs: epochs to train (default: the file's max_epochs).
        minutes: end before an epoch that would not fit in.
        seed: of the trial.
        fresh: forget an earlier training of this name.
        on_start: is called when the stages are there, with the baselines.
        on_epoch: is called after each epoch, with what was trained so far.
        progress: is told how far the training is.

    Raises:
        BadInputError: the file, the store or a setting cannot be used.
        TrialFailedError: the training diverged or collapsed.
    """
    name = check_name(name or file.stem)
    spec, trainable, _ = load_sweep(file)
    if epochs is not None:
        pruner = spec.pruner.model_copy(update={"max_epochs": epochs, "grace_epochs": 1})
        spec = spec.model_copy(update={"pruner": pruner})
    params = {**default_params(spec, trainable.config_model), **(settings or {})}
    _check_settings(spec, trainable, params)
    found = find_store(spec, trainable, store)
    resolved = Home.resolve(home).prepare()
    trial = SingleTrial(
        name=name,
        spec=spec,
        params=params,
        seed=seed,
        store=found.address,
        store_digest=found.summary.digest,
        storage=resolved.storage,
        record=resolved.folder / "train" / f"{name}.json",
    )
    if fresh:
        forget_single(trial)
    training = Training(params, spec.objective.metric, spec.pruner.max_epochs, found.address)

    def started(start: Started, before: Sequence[SingleEpoch]) -> None:
        training.epochs.extend(map(_row, before))
        products = {name: stage.folder for name, stage in start.stages.items()}
        values, _ = ask_baselines(trainable, products, spec.objective.metric)
        training.baselines.update(values)
        on_start(training)

    def trained(result: SingleEpoch) -> None:
        training.epochs.append(_row(result))
        on_epoch(training)

    training.model = train_single(
        trial,
        trainable,
        on_start=started,
        on_epoch=trained,
        progress=progress,
        seconds=None if minutes is None else 60 * minutes,
    )
    return training


def _row(result: SingleEpoch) -> dict[str, Any]:
    return {"epoch": result.epoch, "seconds": result.seconds, **result.metrics}


def _check_settings(spec: SweepSpec, trainable: type[Trainable], params: Mapping[str, Any]) -> None:
    """Refuse settings that the configuration does not take, by the name that was given."""
    try:
        configure(trainable.config_model, spec.fixed, params)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field_name = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"]
        if fault["type"] == "extra_forbidden":
            message = "no such field (posetune fields lists them, by the names that --set takes)"
        raise BadInputError(f"--set {field_name}: {message}, got {fault['input']!r}") from error
    except TypeError as error:
        raise BadInputError(f"--set: {error}") from error
