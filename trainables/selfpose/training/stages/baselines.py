"""Builds the stage `baselines`: what guesses without learning are worth in validation."""

from __future__ import annotations

from pathlib import Path

from posetune.api import Progress, StageWork
from selfpose.data.store import open_store
from selfpose.evaluation.baselines import build_baselines
from selfpose.training.stages.inputs import StageInputs

__all__ = ["READS", "build"]

READS = ("val_frames", "image_size")


def build(inputs: StageInputs, folder: Path, progress: Progress, work: StageWork) -> None:
    """Write the baselines into a folder."""
    build_baselines(
        open_store(inputs.store),
        val_frames=inputs.fields["val_frames"],
        image_size=inputs.fields["image_size"],
        seed=inputs.seed,
        folder=folder,
    )
    progress(1, 1)
