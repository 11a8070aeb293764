from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.commands import run_here

from posetune.api import BadInputError
from selfpose.config import SelfPoseConfig
from selfpose.inference import PosePredictor, build_model, export_model, load_model
from selfpose.method.geometry import mirror_poses
from selfpose.method.skeleton import H36M_17

COMPLETE = SelfPoseConfig.model_validate({"image_size": 32, "width": 4, "lifting": {"width": 16}})
LIFTING = SelfPoseConfig.model_validate({"mode": "lifting", "lifting": {"width": 16}})


def exported(config: SelfPoseConfig, folder: Path) -> PosePredictor:
    folder.mkdir()
    export_model(build_model(config, H36M_17, h=0.4), config, folder)
    return load_model(folder)


def some_images(side: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_poses_are_root_centred_with_mean_limb_length_one(tmp_path: Path) -> None:
    poses = exported(COMPLETE, tmp_path / "model")(some_images(32))
    limbs = np.array(H36M_17.limbs)
    lengths = np.linalg.norm(poses[:, limbs[:, 0]] - poses[:, limbs[:, 1]], axis=-1)

    assert poses.shape == (3, 17, 3)
    assert poses.dtype == np.float32
    np.testing.assert_array_equal(poses[:, 0], 0)
    np.testing.assert_allclose(lengths.mean(axis=1), 1, rtol=1e-5)


def test_a_loaded_model_predicts_what_the_exported_one_did(tmp_path: Path) -> None:
    model = build_model(COMPLETE, H36M_17, h=0.4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    export_model(model, COMPLETE, tmp_path)
    images = some_images(32)

    np.testing.assert_array_equal(
        load_model(tmp_path)(images), PosePredictor(model, COMPLETE)(images)
    )


def test_each_image_is_read_by_itself(tmp_path: Path) -> None:
    predictor, images = exported(COMPLETE, tmp_path / "model"), some_images(32)

    np.testing.assert_allclose(predictor(images)[:1], predictor(images[:1]), atol=1e-5)


def test_images_of_twice_the_size_are_reduced_first(tmp_path: Path) -> None:
    predictor, images = exported(COMPLETE, tmp_path / "model"), some_images(32)
    doubled = images.repeat(2, axis=1).repeat(2, axis=2)

    np.testing.assert_array_equal(predictor(doubled), predictor(images))


def test_no_images_give_no_poses(tmp_path: Path) -> None:
    assert exported(COMPLETE, tmp_path / "model")(some_images(32, 0)).shape == (0, 17, 3)


@pytest.mark.parametrize(
    "images", [some_images(48), some_images(32).astype(np.float32), some_images(32)[..., :1]]
)
def test_other_images_are_refused(images: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="takes uint8"):
        exported(COMPLETE, tmp_path / "model")(images)


def test_whoever_predicts_hears_that_the_background_of_the_training_pictures_was_removed(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    cv2.imwrite(str(tmp_path / "me.png"), some_images(32, 1)[0])
    said = {}
    for background in ("keep", "remove"):
        model = build_model(COMPLETE, H36M_17, h=0.4)
        export_model(model, COMPLETE, folder, {"background": background})
        done = run_here("predict", folder, "me.png", "--out", background, "--json", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        said[background] = json.loads(done.stdout)["notes"]
    again = run_here("predict", folder, "me.png", "--out", "out", "--no-draw", folder=tmp_path)

    assert said["keep"] == []
    assert said["remove"] == list(load_model(folder).input_notes)
    assert "note: The background of its training pictures was removed" in again.stderr


def test_a_lifting_model_takes_2d_poses_and_no_images(tmp_path: Path) -> None:
    predictor = exported(LIFTING, tmp_path / "model")

    with pytest.raises(BadInputError, match="lifting mode"):
        predictor(some_images(128))
    assert predictor.lift(np.zeros((2, 17, 2), np.float32)).shape == (2, 17, 3)
    with pytest.raises(BadInputError, match="2D poses"):
        predictor.lift(np.zeros((2, 16, 2), np.float32))


def test_a_model_that_averages_lifts_a_mirror_image_to_the_mirror_image() -> None:
    config = SelfPoseConfig.model_validate(
        {"mode": "lifting", "lifting": {"width": 16, "mirror_average": True}}
    )
    model = build_model(config, H36M_17, h=0.4)
    poses = torch.randn(5, 17, 2, generator=torch.Generator().manual_seed(0))
    mirror = list(H36M_17.mirror)
    with torch.no_grad():
        lifted = model.lift(poses)
        of_mirrored = model.lift(mirror_poses(poses, mirror))

    torch.testing.assert_close(of_mirrored, lifted[:, mirror] * torch.tensor([-1.0, 1.0, 1.0]))


def test_lifting_does_not_depend_on_place_in_the_crop(tmp_path: Path) -> None:
    predictor = exported(LIFTING, tmp_path / "model")
    poses = np.random.default_rng(0).normal(size=(2, 17, 2)).astype(np.float32)

    np.testing.assert_allclose(predictor.lift(poses + 0.1), predictor.lift(poses), atol=1e-4)


@pytest.mark.parametrize("damage", ["nothing", "weights", "facts"])
def test_what_is_no_exported_model_is_refused(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    if damage == "nothing":
        folder.mkdir()
    else:
        exported(LIFTING, folder)
        name = {"weights": "model.safetensors", "facts": "model.json"}[damage]
        (folder / name).write_bytes((folder / name).read_bytes()[:100])

    with pytest.raises(BadInputError, match="export the trial again"):
        load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    exported(LIFTING, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    name = next(iter(weights))
    weights[name].view(-1)[0] = value
    save_file(weights, file)

    with pytest.raises(BadInputError, match=rf"1 numbers of {name} are not finite"):
        load_model(tmp_path / "model")


def test_facts_that_are_nested_without_end_are_refused_in_one_line(tmp_path: Path) -> None:
    exported(LIFTING, tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text("[" * 100_000)

    with pytest.raises(BadInputError, match="not an exported selfpose model") as raised:
        load_model(tmp_path / "model")
    assert "\n" not in str(raised.value)
