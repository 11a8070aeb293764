"""The whole model on hands: another layout from the store, nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posetune.api import TrialContext, silent
from selfpose.config import SelfPoseConfig
from selfpose.data.store import open_store
from selfpose.skeleton import HAND_21
from selfpose.trainable import SelfPose

CONFIG: dict[str, Any] = {
    "image_size": 32,
    "width": 4,
    "batch_size": 4,
    "steps_per_epoch": 3,
    "val_frames": 24,
    "pretrain_keypoints": 2,
    "pretrain_silhouette": 2,
    "lift_prior": 4,
    "lifting": {"width": 16},
    "discriminator": {"width": 4},
    "flow": {"depth": 2, "hidden": 8, "steps": 5, "batch_size": 16, "pca_dimensions": 40},
    "loss_weights": {"silhouette": 1, "bone": 1},
}


@pytest.fixture(scope="module")
def hand_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("stores") / "hands"
    importer = SelfPose.importers()["procedural_hand"]
    options = importer.options(image_size=64, limit=48, level="plain", workers=1)
    importer.run(None, store, options, silent)
    return store


def started(config: SelfPoseConfig, store: Path, work: Path) -> SelfPose:
    products = {}
    for stage in SelfPose.stages(config, store):
        products[stage.name] = work / "products" / stage.name
        products[stage.name].mkdir(parents=True)
        stage.build(products[stage.name], silent)
    trial = SelfPose()
    trial.start(config, TrialContext(store=store, seed=3, work=work, products=products))
    return trial


@pytest.mark.parametrize("mode", ["complete", "lifting"])
def test_the_whole_model_trains_on_hands(hand_store: Path, tmp_path: Path, mode: str) -> None:
    config = SelfPoseConfig.model_validate({**CONFIG, "mode": mode})
    trial = started(config, hand_store, tmp_path)
    reported = trial.epoch()
    assert [name for name, value in reported.items() if not np.isfinite(value)] == []

    model, figures = tmp_path / "model", tmp_path / "figures"
    model.mkdir()
    figures.mkdir()
    trial.export(model)
    trial.draw(figures)
    assert (figures / "validation.png").read_bytes().startswith(b"\x89PNG")
    found = SelfPose.evaluate(model, hand_store, "test")
    assert all(np.isfinite(value) for value in found.metrics.values())
    assert found.baselines["mean_shape"] > 0
    predictor = SelfPose.load_model(model)
    assert tuple(predictor.joint_names) == HAND_21.joints
    if mode == "complete":
        images = open_store(hand_store).split("test").images([0, 1, 2])
        assert predictor(images).shape == (3, 21, 3)
