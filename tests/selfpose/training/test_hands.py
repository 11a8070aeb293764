"""The whole model on hands: another layout from the store, nothing else changes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from posetune.api import BadInputError, TrialContext, silent
from posetune.spec.sweep import SweepSpec
from posetune.testing.stages import build_stages
from posetune.workflow.stores import find_store
from selfpose.config import SelfPoseConfig
from selfpose.data.store import Split, open_store
from selfpose.method.skeleton import HAND_21
from selfpose.trainable import SelfPose

PNG = b"\x89PNG"
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
    products = build_stages(SelfPose.stages(config, store), work / "products")
    trial = SelfPose()
    trial.start(config, TrialContext(store=store, seed=3, work=work, products=products))
    return trial


@pytest.mark.parametrize("mode", ["complete", "lifting", "supervised"])
def test_the_whole_model_trains_on_hands(hand_store: Path, tmp_path: Path, mode: str) -> None:
    trial = started(SelfPoseConfig.model_validate({**CONFIG, "mode": mode}), hand_store, tmp_path)
    reported = trial.epoch()
    assert [name for name, value in reported.items() if not np.isfinite(value)] == []

    (tmp_path / "model").mkdir()
    trial.export(tmp_path / "model")
    predictor = SelfPose.load_model(tmp_path / "model")
    assert tuple(predictor.joint_names) == HAND_21.joints
    if mode == "complete":
        images = open_store(hand_store).split("test").images([0, 1, 2])
        assert predictor(images).shape == (3, 21, 3)


def test_hands_have_no_sides_to_be_equally_long(hand_store: Path) -> None:
    weights = {"loss_weights": {"symmetry": 5}}
    with pytest.raises(BadInputError, match="symmetry: 5, but layout hand21 has no left and right"):
        SelfPose.stages(SelfPoseConfig.model_validate({**CONFIG, **weights}), hand_store)


@pytest.mark.long
@pytest.mark.slow
def test_hands_are_evaluated_and_drawn(hand_store: Path, tmp_path: Path) -> None:
    trial = started(SelfPoseConfig.model_validate(CONFIG), hand_store, tmp_path)
    for name in ("model", "figures"):
        (tmp_path / name).mkdir()
    trial.export(tmp_path / "model")
    trial.draw(tmp_path / "figures")
    found = SelfPose.evaluate(tmp_path / "model", hand_store, "test")

    assert (tmp_path / "figures" / "validation.png").read_bytes().startswith(PNG)
    assert all(np.isfinite(value) for value in found.metrics.values())
    assert found.baselines["mean_shape"] > 0
    assert found.pictures["poses.png"].startswith(PNG)


@pytest.fixture
def without_3d(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every store look like one that was made from 2D annotations alone."""

    def refuse(split: Split) -> None:
        raise BadInputError(f"split {split.name} holds no joints_3d")

    monkeypatch.setattr(Split, "has_3d", False)
    monkeypatch.setattr(Split, "joints_3d", property(refuse))


@pytest.mark.slow
def test_training_needs_no_3d_truth_and_is_the_same_without(
    hand_store: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    config = SelfPoseConfig.model_validate(CONFIG)
    with_3d = started(config, hand_store, tmp_path / "with")
    expected = dict(with_3d.epoch())
    request.getfixturevalue("without_3d")
    trial = started(config, hand_store, tmp_path / "without")
    reported = dict(trial.epoch())

    unavailable = SelfPose.describe_store(hand_store).unavailable
    assert "val/p_mpjpe_mm" in unavailable
    assert reported == {n: value for n, value in expected.items() if n not in unavailable}
    assert reported["val/error_2d_px"] > 0
    for name, weight in with_3d._trial.model.state_dict().items():
        assert torch.equal(weight, trial._trial.model.state_dict()[name]), name


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("without_3d")
def test_what_needs_no_3d_truth_works_without(hand_store: Path, tmp_path: Path) -> None:
    trial = started(SelfPoseConfig.model_validate(CONFIG), hand_store, tmp_path)
    trial.epoch()
    products = trial._trial.context.products
    for name in ("model", "figures"):
        (tmp_path / name).mkdir()
    trial.export(tmp_path / "model")
    trial.draw(tmp_path / "figures")
    found = SelfPose.evaluate(tmp_path / "model", hand_store, "test")

    assert SelfPose.baselines(products, "val/p_mpjpe_mm") == {}
    assert SelfPose.baselines(products, "val/error_2d_px")["mean_2d_pose"] > 0
    assert set(found.metrics) == {"test/error_2d_px"}
    assert found.baselines.keys() == {"mean_2d_pose_px"}
    assert found.pictures["poses.png"].startswith(PNG)
    assert SelfPose.describe_store(hand_store).facts["true 3D poses"].startswith("none")


@pytest.mark.usefixtures("without_3d")
@pytest.mark.parametrize("mode", ["lifting", "supervised"])
def test_a_mode_that_needs_3d_truth_is_refused_without(hand_store: Path, mode: str) -> None:
    config = SelfPoseConfig.model_validate({**CONFIG, "mode": mode})

    with pytest.raises(BadInputError, match=f"{mode} needs true 3D poses"):
        SelfPose.stages(config, hand_store)


@pytest.mark.usefixtures("without_3d")
def test_an_objective_that_needs_3d_truth_is_refused_in_one_line(hand_store: Path) -> None:
    def spec(metric: str) -> SweepSpec:
        return SweepSpec.model_validate(
            {
                "objective": {"metric": metric, "mode": "min"},
                "search": {"flow.depth": {"int": [2, 4]}},
                "pruner": {"name": "asha", "max_epochs": 1},
                "budget": {"trials": 1},
            }
        )

    with pytest.raises(BadInputError) as caught:
        find_store(spec("val/p_mpjpe_mm"), SelfPose, hand_store)
    assert "val/p_mpjpe_mm" in str(caught.value)
    assert "holds no true 3D poses" in str(caught.value)
    assert "(val/error_2d_px)" in str(caught.value)
    assert "\n" not in str(caught.value)
    find_store(spec("val/error_2d_px"), SelfPose, hand_store)


HANDS_SWEEP = """\
objective: {{metric: {metric}, mode: min}}
search:
  loss_weights.keypoint: {{float: [0.1, 10], log: true}}
fixed:
  image_size: 32
  width: 4
  batch_size: 4
  steps_per_epoch: 3
  pretrain_keypoints: 2
  lifting: {{width: 16}}
  discriminator: {{width: 4}}
  flow: {{depth: 2, hidden: 8, steps: 5, batch_size: 8}}
pruner: {{name: asha, max_epochs: 2}}
resources: {{cpu: 1}}
budget: {{trials: 2}}
"""


@pytest.mark.long
@pytest.mark.ray
def test_a_sweep_on_handdb_goes_from_its_folders_to_a_promoted_model(
    posetune: Callable[..., subprocess.CompletedProcess[str]],
    handdb_maker: SimpleNamespace,
    tmp_path: Path,
) -> None:
    def ran(*arguments: object) -> str:
        result = posetune(*arguments)
        assert result.returncode == 0, (arguments, result.stderr)
        return result.stdout

    root, store = handdb_maker.write(tmp_path / "handdb"), tmp_path / "store"
    ran("data", "import", root, "--format", "handdb", "--image-size", 32, "--out", store)
    facts = json.loads(ran("data", "info", store, "--json"))["facts"]
    assert facts["true 3D poses"].startswith("none")
    assert (store / "contact_sheet.png").stat().st_size > 1000

    file = tmp_path / "hands.yaml"
    file.write_text(HANDS_SWEEP.format(metric="val/p_mpjpe_mm"))
    refused = posetune("check", file, "--store", store)
    assert refused.returncode == 2
    assert "holds no true 3D poses" in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr

    file.write_text(HANDS_SWEEP.format(metric="val/error_2d_px"))
    ran("check", file, "--store", store)
    ran("sweep", file, "--store", store, "--name", "hands")
    shown = json.loads(ran("show", "hands", "--json"))
    assert shown["state"] == "COMPLETE"
    assert shown["baselines"]["mean_2d_pose"] > 0
    assert set(shown["baselines"]) == {"mean_2d_pose"}
    ran("promote", "hands", "--model", "hands")
