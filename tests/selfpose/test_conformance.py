"""The model follows the laws of a trainable, in the quickstart's shape and smaller."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from posetune.testing.conformance import TrainableConformance
from selfpose.trainable import SelfPose


@pytest.mark.slow
class TestSelfPose(TrainableConformance):
    trainable = SelfPose
    quick: ClassVar = {
        "image_size": 32,
        "width": 4,
        "batch_size": 8,
        "steps_per_epoch": 3,
        "val_frames": 40,
        "lift_prior": 8,
        "pretrain_keypoints": 2,
        "pretrain_silhouette": 2,
        "loss_weights.silhouette": 1,
        "lifting.width": 32,
        "flow.depth": 2,
        "flow.hidden": 16,
        "flow.steps": 5,
        "discriminator.width": 4,
        "discriminator.noise": 0.1,
    }

    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, tiny_store: Path) -> Path:
        return tiny_store

    @pytest.mark.long
    def test_a_trial_in_a_reused_process_is_as_in_a_new_one(
        self, store: Path, products: dict[str, Path], tmp_path: Path
    ) -> None:
        super().test_a_trial_in_a_reused_process_is_as_in_a_new_one(store, products, tmp_path)
