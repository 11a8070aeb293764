"""The model as the platform sees it: `selfpose.trainable:SelfPose`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import cv2
import torch
from pydantic import BaseModel

from posetune.api import (
    Cost,
    Evaluation,
    Importer,
    Metric,
    Progress,
    Stage,
    StoreSummary,
    TrialContext,
    silent,
)
from selfpose import data
from selfpose.config import SelfPoseConfig
from selfpose.evaluation.baselines import read_baselines
from selfpose.evaluation.evaluate import evaluate_exported
from selfpose.evaluation.notes import data_facts
from selfpose.inference import PosePredictor, export_model, load_model
from selfpose.method.losses import TRAINING_METRICS
from selfpose.method.metrics import METRICS
from selfpose.portable import export_graph
from selfpose.training.stages.needed import needed_stages
from selfpose.training.trial import Trial

__all__ = ["SelfPose"]

_TRAIN_METRICS = {f"train/{name}": metric for name, metric in TRAINING_METRICS.items()}


class SelfPose:
    """Self-supervised 3D human pose from unlabelled images and unpaired 2D poses."""

    parallel: ClassVar[bool] = True
    reusable: ClassVar[bool] = True
    config_model: ClassVar[type[BaseModel]] = SelfPoseConfig
    metrics: ClassVar[Mapping[str, Metric]] = {**METRICS, **_TRAIN_METRICS}

    _trial: Trial

    @classmethod
    def importers(cls) -> Mapping[str, Importer]:
        """Return the data formats that can be imported, by name."""
        return data.importers()

    @classmethod
    def describe_store(cls, store: Path) -> StoreSummary:
        """Say what is in a store."""
        return data.describe(store)

    @classmethod
    def draw_store(cls, store: Path, out: Path) -> None:
        """Write a contact sheet of a store as the PNG file `out`."""
        data.draw_contact_sheet(store, out)

    @classmethod
    def stages(cls, config: SelfPoseConfig, store: Path) -> Sequence[Stage]:
        """Return what is trained once for all trials that agree on it."""
        return needed_stages(config, store)

    @classmethod
    def baselines(cls, products: Mapping[str, Path], metric: str) -> Mapping[str, float]:
        """Return the trivial baselines of one metric on validation, by name."""
        return read_baselines(products["baselines"], metric) if "baselines" in products else {}

    @classmethod
    def rates_decay(cls, config: SelfPoseConfig) -> bool:
        """Return whether the learning rates fall along a cosine."""
        return config.decay_steps > 0

    @classmethod
    def note_of_extension(cls, config: SelfPoseConfig) -> str:
        """Say that the learning rates are zero in further epochs, where they decay."""
        if not config.decay_steps:
            return ""
        return (
            f"decay_steps {config.decay_steps}: the learning rates have fallen to 0 by that step, "
            "so epochs beyond it change nothing; train one that decays more slowly instead"
        )

    @classmethod
    def forecast(cls, config: SelfPoseConfig, context: TrialContext) -> Cost:
        """Measure a few steps and say what a trial takes."""
        from selfpose.training.forecast import forecast_cost

        _set_threads(context.threads)
        return forecast_cost(config, context)

    def start(self, config: SelfPoseConfig, context: TrialContext) -> None:
        """Build the networks and open the data of one trial.

        Raises:
            BadInputError: the store does not fit the configuration.
        """
        _set_threads(context.threads)
        torch.manual_seed(context.seed)
        self._trial = Trial(config, context)

    def epoch(self) -> Mapping[str, float]:
        """Train one epoch and validate.

        Raises:
            TrialFailedError: the trial diverged or collapsed.
        """
        means = self._trial.train(self._trial.context.progress)
        if self._trial.context.rank > 0:  # the first one validates what all have trained
            return {}
        return {
            **self._trial.validate(),
            **{f"train/{name}": mean for name, mean in means.items()},
        }

    def save(self, folder: Path) -> None:
        """Write everything that an exact continuation needs."""
        self._trial.save(folder)

    def load(self, folder: Path) -> None:
        """Continue exactly from what `save` wrote."""
        self._trial.load(folder)

    def export(self, folder: Path) -> None:
        """Write inference weights and what loads them."""
        trained_on = data_facts(data.open_store(self._trial.context.store))
        export_model(self._trial.model, self._trial.config, folder, trained_on)

    def draw(self, folder: Path) -> None:
        """Write a sheet of validation frames with true and predicted poses."""
        self._trial.draw(folder / "validation.png")

    @classmethod
    def evaluate(
        cls, exported: Path, store: Path, split: str, progress: Progress = silent
    ) -> Evaluation:
        """Evaluate an exported model on a split."""
        return evaluate_exported(exported, store, split, progress)

    @classmethod
    def load_model(cls, exported: Path) -> PosePredictor:
        """Load what `export` wrote."""
        return load_model(exported)

    @classmethod
    def export_graph(cls, exported: Path, out: Path) -> float:
        """Write an exported model as one program; return the largest difference to the model.

        It is ONNX where `out` ends in `.onnx`, and a `torch.export` program otherwise.
        """
        return export_graph(exported, out)


def _set_threads(count: int) -> None:
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
