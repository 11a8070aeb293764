import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.spatial.transform import Rotation

from posetune.api import BadInputError
from selfpose.evaluation.baselines import build_baselines, read_baselines
from selfpose.method.metrics import error_2d_px, p_mpjpe, validation_subset
from selfpose.method.skeleton import H36M_17

SHAPE = np.random.default_rng(7).normal(scale=300.0, size=(17, 3))

MACRO, FRAME = "val/p_mpjpe_mm", "val/p_mpjpe_frame_mm"


class FakeSplit(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.motion)


def split(number: int, *, noise: float, seed: int) -> FakeSplit:
    """Noisy copies of one shape, turned about the vertical and seen 4 m away, f = 4 half frames."""
    generator = np.random.default_rng(seed)
    poses = SHAPE + generator.normal(scale=noise, size=(number, 17, 3))
    turn_vectors = np.zeros((number, 3))
    turn_vectors[:, 1] = generator.uniform(-np.pi, np.pi, number)
    poses = poses @ Rotation.from_rotvec(turn_vectors).as_matrix()
    poses = poses + np.array([0.0, 0.0, 4000.0])
    return FakeSplit(
        has_3d=True,
        joints_3d=poses.astype(np.float32),
        joints_2d=(4 * poses[..., :2] / poses[..., 2:]).astype(np.float32),
        activity=np.arange(number, dtype=np.int32) % 2,
        motion=np.arange(number, dtype=np.int32) // 10,
    )


def store(**splits: FakeSplit) -> Any:
    return SimpleNamespace(
        root=Path("somewhere"),
        layout=H36M_17,
        metadata=SimpleNamespace(image_size=64, activities=("Walking", "Sitting")),
        split=splits.__getitem__,
    )


def truths(rows: FakeSplit, frames: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    chosen = validation_subset(len(rows), frames, seed)
    return rows.joints_3d[chosen], rows.joints_2d[chosen]


def test_one_shape_for_everybody_is_found_by_the_mean_shape(tmp_path: Path) -> None:
    data = store(train=split(300, noise=0.0, seed=0), val=split(300, noise=0.0, seed=1))

    build_baselines(data, val_frames=300, image_size=64, seed=0, folder=tmp_path)

    found = read_baselines(tmp_path, MACRO)
    assert found["mean_shape"] == pytest.approx(0.0, abs=0.01)
    assert found["camera_mean"] > 50.0  # people turn, so the mean pose in camera axes is no pose
    assert found["depth_flipped_truth"] > 50.0
    assert 20.0 < found["flat_depth_true_2d"] < found["depth_flipped_truth"]


def test_baselines_are_scored_on_the_rows_that_validation_sees(tmp_path: Path) -> None:
    val = split(400, noise=50.0, seed=1)

    build_baselines(
        store(train=split(200, noise=50.0, seed=0), val=val),
        val_frames=250,
        image_size=32,
        seed=3,
        folder=tmp_path,
    )

    truth_3d, truth_2d = truths(val, 250, 3)
    flipped = truth_3d * np.array([1, 1, -1])
    found = read_baselines(tmp_path, FRAME)
    assert found["depth_flipped_truth"] == pytest.approx(p_mpjpe(flipped, truth_3d).mean())
    constants = load_file(tmp_path / "constant_poses.safetensors")
    shape = np.broadcast_to(constants["mean_shape_j3"], truth_3d.shape)
    assert found["mean_shape"] == pytest.approx(p_mpjpe(shape, truth_3d).mean())
    mean_2d = np.broadcast_to(constants["mean_2d_j2"], truth_2d.shape)
    assert read_baselines(tmp_path, "val/error_2d_px") == {
        "mean_2d_pose": pytest.approx(error_2d_px(mean_2d, truth_2d, image_size=32).mean())
    }
    assert read_baselines(tmp_path, "val/auc") == {}


def test_every_3d_baseline_has_a_macro_average_and_a_frame_mean(tmp_path: Path) -> None:
    val = split(360, noise=20.0, seed=1)
    val.activity = (np.arange(360) >= 240).astype(np.int32)
    val.joints_3d[:240] += np.random.default_rng(5).normal(scale=90.0, size=(240, 17, 3))

    build_baselines(
        store(train=split(50, noise=20.0, seed=0), val=val),
        val_frames=360,
        image_size=64,
        seed=0,
        folder=tmp_path,
    )

    found, frame = read_baselines(tmp_path, MACRO), read_baselines(tmp_path, FRAME)
    names = {"mean_shape", "camera_mean", "flat_depth_true_2d", "depth_flipped_truth"}
    assert set(found) == set(frame) == names
    assert found["mean_shape"] < frame["mean_shape"]  # more frames are of the hard activity
    written = json.loads((tmp_path / "baselines.json").read_text())
    assert written["activities"] == {"own": ["Walking", "Sitting"], "pooled": []}


def test_without_3d_truth_there_are_the_2d_baselines_alone(tmp_path: Path) -> None:
    data = store(train=split(50, noise=20.0, seed=0), val=split(50, noise=20.0, seed=1))
    for name in ("train", "val"):
        data.split(name).has_3d = False
        del data.split(name).joints_3d

    build_baselines(data, val_frames=50, image_size=64, seed=0, folder=tmp_path)

    assert read_baselines(tmp_path, MACRO) == {}
    assert read_baselines(tmp_path, "val/error_2d_px")["mean_2d_pose"] > 1
    assert set(load_file(tmp_path / "constant_poses.safetensors")) == {"mean_2d_j2"}


def test_building_twice_gives_the_same_files(tmp_path: Path) -> None:
    data = store(train=split(100, noise=30.0, seed=0), val=split(100, noise=30.0, seed=1))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        build_baselines(data, val_frames=60, image_size=64, seed=0, folder=tmp_path / name)

    files = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    assert set(files) == {"baselines.json", "constant_poses.safetensors"}
    assert files == {file.name: file.read_bytes() for file in (tmp_path / "b").iterdir()}


@pytest.mark.parametrize("empty", ["train", "val"])
def test_a_store_without_rows_is_refused(tmp_path: Path, empty: str) -> None:
    splits = {
        name: split(0 if name == empty else 20, noise=1.0, seed=0) for name in ("train", "val")
    }

    with pytest.raises(BadInputError, match=f"split {empty} has no rows"):
        build_baselines(store(**splits), val_frames=10, image_size=64, seed=0, folder=tmp_path)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"mm": 3}', '{"mm": {"a": "b"}}'])
def test_baselines_that_cannot_be_read_are_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "baselines.json").write_text(text)

    with pytest.raises(BadInputError, match=r"baselines\.json"):
        read_baselines(tmp_path, MACRO)
