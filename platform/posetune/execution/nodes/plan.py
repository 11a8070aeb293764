"""Forecasts what a sweep will take, before anything is spent: trials, stages, time and disk.

The cost of a trial comes from one measured step of the default configuration; how many epochs the
rungs leave is simulated (`study.forecasting.forecast`).
"""

from __future__ import annotations

import math
import os
import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from posetune.api import BadInputError, Cost, Trainable, TrialContext
from posetune.spec.loading import configure, default_params, rates_decay
from posetune.spec.parameters import Choice, FloatRange, IntRange, Scalar
from posetune.spec.sweep import SweepSpec
from posetune.stages.cache import stage_key
from posetune.study.budget import unit
from posetune.study.forecasting.forecast import forecast
from posetune.study.forecasting.forecast_model import Situation
from posetune.study.search.rungs import rung_epochs
from posetune.study.search.space import most_trials
from posetune.trial.run import require_device

__all__ = ["Plan", "disk_bytes", "measure", "plan_sweep"]


@dataclass(frozen=True)
class Plan:
    """Forecast of what a sweep will take."""

    trials: int
    slots: int
    """How many trials run at a time on this machine."""
    stages: dict[str, int]
    """Number of distinct products of each stage, for a random draw of all trials."""
    epochs: tuple[int, int]
    """Epochs of all trials together: the two ends of an interval that holds with 80 %."""
    most_epochs: int
    """Epochs of all trials together if none is pruned."""
    not_measured: str = ""
    """Why nothing could be measured here; seconds, GPU-hours and bytes are zero then."""
    epoch_s: float = 0.0
    stages_s: float = 0.0
    seconds: tuple[float, float] = (0.0, 0.0)
    """Seconds from start to end on this machine: the two ends of an interval of 80 %."""
    gpu_hours: tuple[float, float] = (0.0, 0.0)
    """GPU-hours as the budget counts them, as an interval of 80 %; without a GPU, trial-hours."""
    disk_bytes: int = 0
    """Most bytes that checkpoints, models and figures take at a time."""
    compared_epochs: tuple[int, ...]
    """The epochs after which trials are compared and may be cut."""
    rates_decay: bool
    """Whether the learning rates decay over the epochs."""
    compared_epochs: tuple[int, ...] = ()
    """The epochs after which trials are compared and may be cut."""
    rates_decay: bool = False
    """Whether the learning rates decay over the epochs."""
    warnings: tuple[str, ...] = ()


def plan_sweep(
    spec: SweepSpec, trainable: type[Trainable], *, store: Path, store_digest: str
) -> Plan:
    """Measure one step and forecast the sweep on this machine."""
    slots = max(1, int((os.cpu_count() or 1) / spec.resources.cpu))
    stages = _distinct_stages(spec, trainable, store=store, store_digest=store_digest)
    not_measured = ""
    try:
        device = require_device(spec.resources)
    except BadInputError as error:
        cost, not_measured = Cost(0.0, {}, 0, 0), str(error)
    else:
        defaults = default_params(spec, trainable.config_model)
        cost = measure(spec, trainable, defaults, store=store, device=device)
    stages_s = sum(cost.stages_s.get(name, 0.0) * count for name, count in stages.items())
    trials = most_trials(spec)
    at_once = min(slots, trials)
    expected = forecast(Situation(spec, slots=at_once, epoch_s=cost.epoch_s, stages_s=stages_s))
    known = bool(cost.epoch_s)
    gpus = spec.resources.gpus_or_one
    return Plan(
        trials=trials,
        slots=slots,
        stages=stages,
        epochs=(round(expected.epochs.low), round(expected.epochs.high)),
        most_epochs=trials * spec.pruner.max_epochs,
        not_measured=not_measured,
        epoch_s=cost.epoch_s,
        stages_s=stages_s,
        seconds=(expected.wall_s.low, expected.wall_s.high) if known else (0.0, 0.0),
        gpu_hours=(
            (gpus * expected.held_s.low / 3600, gpus * expected.held_s.high / 3600)
            if known
            else (0.0, 0.0)
        ),
        disk_bytes=disk_bytes(trials, at_once, cost, pauses=spec.pruner.name == "thaw"),
        compared_epochs=tuple(rung_epochs(spec.pruner)),
        rates_decay=rates_decay(spec, trainable),
        warnings=tuple(_warnings(spec, stages, cost)),
    )


def _warnings(spec: SweepSpec, stages: Mapping[str, int], cost: Cost) -> Iterator[str]:
    for name, count in stages.items():
        if count == most_trials(spec) > 1:
            yield (
                f"stage {name} is distinct for every trial: a searched field changes it, so "
                "nothing is shared"
            )
    if spec.pruner.name != "none" and not rung_epochs(spec.pruner):
        yield (
            f"pruner: nothing can be cut, because grace_epochs ({spec.pruner.grace_epochs}) is the "
            "last epoch; lower it"
        )
    complete = spec.pruner.max_epochs * cost.epoch_s * spec.resources.gpus_or_one / 3600
    if spec.budget.gpu_hours is not None and spec.budget.gpu_hours < complete:
        yield (
            f"budget.gpu_hours: {spec.budget.gpu_hours:g} is less than the {complete:.3g} "
            f"{unit(spec)} of one complete trial"
        )


def disk_bytes(trials: int, at_once: int, cost: Cost, *, pauses: bool = False) -> int:
    """Return the most that checkpoints, models and figures of a sweep take at a time.

    Args:
        trials: of the sweep.
        at_once: how many of them run at a time.
        cost: of one trial.
        pauses: whether trials are paused; they keep what an open one keeps.
    """
    # An open trial keeps its newest two checkpoints and its best while it writes the next; all may
    # come to completion, as with a sampler whose every trial is better than the last, and keep two.
    most = 4 * at_once + (3 if pauses else 2) * (trials - at_once)
    return most * cost.checkpoint_bytes + trials * cost.model_bytes


def measure(
    spec: SweepSpec,
    trainable: type[Trainable],
    params: Mapping[str, Scalar],
    *,
    store: Path,
    device: str,
) -> Cost:
    """Train a few steps with these parameters, here, and return what a trial takes."""
    with tempfile.TemporaryDirectory(prefix="posetune-check-") as work:
        context = TrialContext(
            store=store,
            seed=0,
            work=Path(work),
            device=device,
            threads=max(1, int(spec.resources.cpu)),
            gpu_share=spec.resources.gpu_share,
            max_epochs=spec.pruner.max_epochs,
        )
        return trainable.forecast(configure(trainable.config_model, spec.fixed, params), context)


def _distinct_stages(
    spec: SweepSpec, trainable: type[Trainable], *, store: Path, store_digest: str
) -> dict[str, int]:
    generator = random.Random(spec.sampler.seed)
    keys: dict[str, set[str]] = {}
    draws = [default_params(spec, trainable.config_model)]
    draws += [_draw(spec, generator) for _ in range(most_trials(spec) - 1)]
    for params in draws:
        config = configure(trainable.config_model, spec.fixed, params)
        for stage in trainable.stages(config, store):
            keys.setdefault(stage.name, set()).add(stage_key(stage, store_digest))
    return {name: len(found) for name, found in keys.items()}


def _draw(spec: SweepSpec, generator: random.Random) -> dict[str, Scalar]:
    return {name: _draw_one(parameter, generator) for name, parameter in spec.search.items()}


def _draw_one(parameter: FloatRange | IntRange | Choice, generator: random.Random) -> Scalar:
    if isinstance(parameter, Choice):
        return generator.choice(parameter.values)
    low, high = parameter.bounds
    if isinstance(parameter, IntRange):
        return generator.randrange(int(low), int(high) + 1, parameter.step)
    if parameter.log:
        return math.exp(generator.uniform(math.log(low), math.log(high)))
    return generator.uniform(low, high)
