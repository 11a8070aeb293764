"""Forecasts the time and disk that a trial takes, from a few measured steps.

The very code of stages and trial runs, with a handful of steps each; nothing is estimated from
formulas that could drift away from it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import torch

from posetune.api import Cost, Stage, StageWork, TrialContext, silent
from selfpose.config import SelfPoseConfig
from selfpose.inference import export_model
from selfpose.training.acceleration import check_kernels
from selfpose.training.stages.needed import needed_stages
from selfpose.training.trial import Trial

__all__ = ["forecast_cost"]

_FEW = 1
"""Steps of the shorter of two measurements, whose difference is the cost of ten steps."""
_MORE = 11
"""Steps of the longer of two measurements."""


def forecast_cost(config: SelfPoseConfig, context: TrialContext) -> Cost:
    """Measure a few steps of each stage and of a trial.

    Args:
        config: the trial's configuration.
        context: store, device, and a work folder for what the measurement writes.

    Raises:
        BadInputError: the store does not fit the configuration, or the kernels cannot be built.
    """
    if config.replay and config.takes_images and context.processes == 1:
        check_kernels(torch.device(context.device))
    _timed_stages(_with_steps(config, _FEW), context.store, context.work / "warm-up")
    few = _timed_stages(_with_steps(config, _FEW), context.store, context.work / "few")
    more = _timed_stages(_with_steps(config, _MORE), context.store, context.work / "more")
    steps = {
        "flow": config.flow.steps,
        "keypoints": config.pretrain_keypoints,
        "silhouette": config.pretrain_silhouette,
    }
    stages_s = {
        name: _scaled(few[name], more[name], steps[name]) if name in steps else seconds
        for name, seconds in few.items()
    }
    if "bodies" in few:
        stages_s["bodies"] = _bodies_s(config, context, few_s=few["bodies"], more_s=more["bodies"])
    products = {name: context.work / "more" / name for name in more}
    context = dataclasses.replace(context, products=products, progress=silent)
    trial = Trial(_with_steps(config, _FEW), context)
    # With the warm-up, or on CUDA with the recording, the first ones take longer.
    few_s = min(
        _seconds(lambda: trial.train(silent)) for _ in range(trial.acceleration.first_steps + 1)
    )
    trial.config = _with_steps(config, _MORE)
    more_s = _seconds(lambda: trial.train(silent))
    epoch_s = _scaled(few_s, more_s, config.steps_per_epoch) + _seconds(trial.validate)
    state, result = context.work / "state", context.work / "result"
    for folder in (state, result):
        folder.mkdir()
    trial.save(state)
    export_model(trial.model, trial.config, result)
    trial.draw(result / "validation.png")
    return Cost(epoch_s, stages_s, _size(state), _size(result))


def _with_steps(config: SelfPoseConfig, steps: int) -> SelfPoseConfig:
    return config.model_copy(
        update={
            "steps_per_epoch": steps,
            "flow": config.flow.model_copy(update={"steps": steps}),
            "pretrain_keypoints": min(steps, config.pretrain_keypoints),
            "pretrain_silhouette": min(steps, config.pretrain_silhouette),
            "pretrain_bodies": min(steps, config.pretrain_bodies),
            "pretrain_pairs": min(steps, config.pretrain_pairs),
        }
    )


def _timed_stages(config: SelfPoseConfig, store: Path, work: Path) -> dict[str, float]:
    """Build every stage below `work` and return the seconds of each."""
    stages = needed_stages(config, store)
    return {stage.name: _seconds_of(stage, work / stage.name) for stage in stages}


def _bodies_s(
    config: SelfPoseConfig, context: TrialContext, *, few_s: float, more_s: float
) -> float:
    """Return the seconds of the stage `bodies`, whose steps are of two kinds.

    Args:
        config: the trial's configuration.
        context: store, and a work folder.
        few_s: measured seconds with few steps of both kinds.
        more_s: measured seconds with more steps of both kinds.
    """
    pairs = min(_FEW, config.pretrain_pairs)
    config_of_reader = _with_steps(config, _MORE).model_copy(update={"pretrain_pairs": pairs})
    stages = needed_stages(config_of_reader, context.store)
    (stage,) = (stage for stage in stages if stage.name == "bodies")
    reader_s = _seconds_of(stage, context.work / "reader" / stage.name)
    pairs_s = _scaled(reader_s, more_s, config.pretrain_pairs) - reader_s
    return _scaled(few_s, reader_s, config.pretrain_bodies) + pairs_s


def _seconds_of(stage: Stage, folder: Path) -> float:
    folder.mkdir(parents=True)
    return _seconds(lambda: stage.build(folder, silent, StageWork()))


def _scaled(few_s: float, more_s: float, steps: int) -> float:
    step_s = max(0.0, more_s - few_s) / (_MORE - _FEW)
    return few_s + step_s * max(0, steps - _FEW)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
