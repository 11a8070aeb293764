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

from posetune.api import Cost, StageWork, TrialContext, silent
from selfpose.config import SelfPoseConfig
from selfpose.inference import export_model
from selfpose.training.acceleration import check_kernels
from selfpose.training.stages.needed import needed_stages
from selfpose.training.trial import Trial

__all__ = ["forecast_cost"]

_FEW = 1
"""Steps of the shorter of two measurements, whose difference is the cost of the steps between."""
_MORE = 11
"""Steps of the longer of two measurements, at first."""
_GROWTH = 4
"""How many times more steps are measured where the longer measurement does not stand out."""
_CLEAR_S = 0.05
"""Seconds by which the longer measurement stands out: a busy machine takes some for itself."""


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
    builds = _Builds(config, context.store, context.work)
    stages_s = builds.forecast()
    context = dataclasses.replace(context, products=builds.products, progress=silent)
    trial = Trial(_with_steps(config, _FEW), context)

    def train_s(steps: int) -> float:
        trial.config = _with_steps(config, steps)
        return _seconds(lambda: trial.train(silent))

    # With the warm-up, or on CUDA with the recording, the first ones take longer.
    few_s = min(train_s(_FEW) for _ in range(trial.acceleration.first_steps + 1))
    epoch_s = _scaled(train_s, few_s, config.steps_per_epoch) + _seconds(trial.validate)
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


class _Builds:
    """Builds the stages of a configuration with a handful of steps, each time in a new folder."""

    def __init__(self, config: SelfPoseConfig, store: Path, work: Path) -> None:
        self.products: dict[str, Path] = {}
        """The newest product of each stage."""
        self._config, self._store, self._work = config, store, work
        self._built = 0

    def forecast(self) -> dict[str, float]:
        """Return the seconds that each stage takes with all its steps."""
        few = _with_steps(self._config, _FEW)
        self._seconds_of_all(few)  # the warm-up
        few_s = self._seconds_of_all(few)
        steps = {
            "flow": self._config.flow.steps,
            "keypoints": self._config.pretrain_keypoints,
            "silhouette": self._config.pretrain_silhouette,
        }
        stages_s = dict(few_s)
        for name in few_s.keys() & steps.keys():
            stages_s[name] = _scaled(self._of(name), few_s[name], steps[name])
        if "bodies" in few_s:
            stages_s["bodies"] = self._bodies_s(few_s["bodies"])
        return stages_s

    def _bodies_s(self, few_s: float) -> float:
        """Return the seconds of the stage `bodies`, whose steps are of two kinds."""
        few = _with_steps(self._config, _FEW)

        def reader(steps: int) -> float:
            readers = min(steps, self._config.pretrain_bodies)
            return self._seconds_of("bodies", few.model_copy(update={"pretrain_bodies": readers}))

        def pairs(steps: int) -> float:
            taught = min(steps, self._config.pretrain_pairs)
            return self._seconds_of("bodies", few.model_copy(update={"pretrain_pairs": taught}))

        reader_s = _scaled(reader, few_s, self._config.pretrain_bodies)
        return reader_s + _scaled(pairs, few_s, self._config.pretrain_pairs) - few_s

    def _of(self, name: str) -> Callable[[int], float]:
        return lambda steps: self._seconds_of(name, _with_steps(self._config, steps))

    def _seconds_of_all(self, config: SelfPoseConfig) -> dict[str, float]:
        return {
            stage.name: self._seconds_of(stage.name, config)
            for stage in needed_stages(config, self._store)
        }

    def _seconds_of(self, name: str, config: SelfPoseConfig) -> float:
        stages = {stage.name: stage for stage in needed_stages(config, self._store)}
        self._built += 1
        folder = self._work / f"{name}-{self._built}"
        folder.mkdir(parents=True)
        self.products[name] = folder
        return _seconds(lambda: stages[name].build(folder, silent, StageWork()))


def _scaled(measure: Callable[[int], float], few_s: float, steps: int) -> float:
    """Return the seconds that many steps take, from the difference of two measurements.

    Args:
        measure: takes so many steps, and returns the seconds.
        few_s: what the shorter measurement took, of `_FEW` steps.
        steps: how many there will be.
    """
    more = _MORE
    while (more_s := measure(more)) - few_s < _CLEAR_S and more < steps:
        more *= _GROWTH
    step_s = max(0.0, more_s - few_s) / (more - _FEW)
    return few_s + step_s * max(0, steps - _FEW)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
