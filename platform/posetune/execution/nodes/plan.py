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
from posetune.execution.nodes.mps import look_at_mps
from posetune.spec.loading import configure, default_params, rates_decay
from posetune.spec.parameters import Choice, FloatRange, IntRange, Scalar
from posetune.spec.sweep import SweepSpec
from posetune.stages.cache import stage_key
from posetune.study.budget import limit_in_words, unit
from posetune.study.forecasting.forecast import SIMULATION_S, forecast
from posetune.study.forecasting.forecast_model import ForecastInput
from posetune.study.search.rungs import rung_epochs
from posetune.study.search.seed_noise import what_is_missing
from posetune.study.search.space import most_trials
from posetune.trial.run import require_device

__all__ = ["Plan", "disk_bytes", "measure", "plan_sweep", "warn_of_no_rungs"]


DRAWN = 1000
"""Trials that are drawn at most to count the distinct products of each stage."""


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
    compared_epochs: tuple[int, ...] = ()
    """The epochs after which trials are compared and may be cut."""
    rates_decay: bool = False
    """Whether the learning rates decay over the epochs."""
    mps: str = ""
    """Whether NVIDIA's MPS will be used on this machine, and why not; empty where the file does
    not ask for it."""
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
    whole = spec.with_trials(trials)
    at_once = min(slots, trials)
    expected = forecast(
        ForecastInput(whole, slots=at_once, epoch_s=cost.epoch_s, stages_s=stages_s)
    )
    known = bool(cost.epoch_s)
    gpus = spec.resources.gpus_or_one
    epochs, wall_s, held_s = (
        _bounds(whole, cost.epoch_s, stages_s, slots=at_once)
        if expected is None
        else [(each.low, each.high) for each in (expected.epochs, expected.wall_s, expected.held_s)]
    )
    return Plan(
        trials=trials,
        slots=slots,
        stages=stages,
        epochs=(round(epochs[0]), round(epochs[1])),
        most_epochs=trials * spec.pruner.max_epochs,
        not_measured=not_measured,
        epoch_s=cost.epoch_s,
        stages_s=stages_s,
        seconds=wall_s if known else (0.0, 0.0),
        gpu_hours=((gpus * held_s[0] / 3600, gpus * held_s[1] / 3600) if known else (0.0, 0.0)),
        disk_bytes=disk_bytes(trials, at_once, cost, pauses=spec.pruner.name == "thaw"),
        compared_epochs=tuple(rung_epochs(spec.pruner)),
        rates_decay=rates_decay(spec, trainable),
        mps=look_at_mps() if spec.resources.mps else "",
        warnings=(*(_TOO_MANY if expected is None else ()), *_warnings(spec, stages, cost)),
    )


_TOO_MANY = (
    f"{SIMULATION_S:g} s do not suffice to simulate so many trials: epochs, time and hours are "
    "what the sweep file allows, no forecast",
)


def _bounds(
    spec: SweepSpec, epoch_s: float, stages_s: float, *, slots: int
) -> list[tuple[float, float]]:
    """Return the least and the most epochs, seconds by the clock and seconds held that can be."""
    first = spec.pruner.max_epochs if spec.pruner.name == "none" else spec.pruner.grace_epochs
    epochs = spec.budget.trials * first, spec.budget.trials * spec.pruner.max_epochs
    held = [stages_s + epoch_s * count for count in epochs]
    hours = spec.budget.limit_gpu_hours
    limit_s = math.inf if hours is None else 3600 * hours / spec.resources.gpus_or_one
    wall_s = 3600 * (spec.budget.wall_hours or math.inf)
    return [
        epochs,
        (min(wall_s, held[0] / slots, limit_s), min(wall_s, held[1] / slots, limit_s)),
        (min(held[0], limit_s, wall_s * slots), min(held[1], limit_s, wall_s * slots)),
    ]


def _warnings(spec: SweepSpec, stages: Mapping[str, int], cost: Cost) -> Iterator[str]:
    for name, count in stages.items():
        if count == most_trials(spec) > 1:
            yield (
                f"stage {name} is distinct for every trial: a searched field changes it, so "
                "nothing is shared"
            )
    yield from warn_of_no_rungs(spec)
    if missing := what_is_missing(spec):
        yield missing
    if spec.resources.cpu > (os.cpu_count() or 1):
        yield (
            f"resources.cpu: {spec.resources.cpu:g} is more than the {os.cpu_count()} of this "
            "machine: a sweep is refused here, unless it joins a cluster (--address)"
        )
    complete = spec.pruner.max_epochs * cost.epoch_s * spec.resources.gpus_or_one / 3600
    limit = spec.budget.limit_gpu_hours
    if limit is not None and limit < complete:
        name = "cost" if spec.budget.is_limited_by_cost else "gpu_hours"
        yield (
            f"budget.{name}: {limit_in_words(spec)} is less than the {complete:.3g} "
            f"{unit(spec)} of one complete trial"
        )


def warn_of_no_rungs(spec: SweepSpec) -> Iterator[str]:
    """Return a warning if the pruner of a sweep can never cut a trial."""
    pruner = spec.pruner
    if pruner.name != "none" and not rung_epochs(pruner):
        yield (
            f"pruner.grace_epochs: {pruner.grace_epochs} is not below max_epochs, "
            f"{pruner.max_epochs}: no trial is ever compared and cut; lower it, or write name: none"
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
    drawn, trials = min(most_trials(spec), DRAWN), most_trials(spec)
    draws = [default_params(spec, trainable.config_model)]
    draws += [_draw(spec, generator) for _ in range(drawn - 1)]
    for params in draws:
        config = configure(trainable.config_model, spec.fixed, params)
        for stage in trainable.stages(config, store):
            keys.setdefault(stage.name, set()).add(stage_key(stage, store_digest))
    # A stage that is distinct in each of so many draws is taken to be so in all trials.
    return {name: trials if len(found) == drawn else len(found) for name, found in keys.items()}


def _draw(spec: SweepSpec, generator: random.Random) -> dict[str, Scalar]:
    return {name: _draw_one(parameter, generator) for name, parameter in spec.search.items()}


def _draw_one(parameter: FloatRange | IntRange | Choice, generator: random.Random) -> Scalar:
    if isinstance(parameter, Choice):
        return generator.choice(parameter.values)
    if isinstance(parameter, IntRange):
        low, high = parameter.corners
        return generator.randrange(low, high + 1, parameter.step)
    bottom, top = parameter.bounds
    if parameter.log:
        return math.exp(generator.uniform(math.log(bottom), math.log(top)))
    return parameter.nearest(generator.uniform(bottom, top))
