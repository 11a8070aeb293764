"""Human3.6M's poses, on small files made as VideoPose3D makes them."""

from __future__ import annotations

import itertools
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from posetune.api import BadInputError, silent
from selfpose import data
from selfpose.data.formats.human36m import IMPORTER
from selfpose.data.formats.human36m_protocol import Human36MOptions
from selfpose.data.formats.recovered_cameras import fit_camera
from selfpose.data.formats.videopose3d import read_videopose3d
from selfpose.data.store import Store, open_store
from selfpose.data.synthetic.bodies.kinematics import bone_lengths, pose_joints
from selfpose.data.synthetic.cameras import CAMERAS

H36M_17 = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
LEFT, RIGHT = [4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]
LENS = np.asarray([[1146.0, 0, 512.0], [0, 1144.0, 508.0], [0, 0, 1]])
DISTORTION = np.asarray([-0.2, 0.24, -0.001, -0.0009, -0.002])

SEQUENCES = {
    "S1": ("Directions 1", "Photo", "WalkTogether"),
    "S8": ("WalkDog 1",),
    "S11": ("Discussion 2",),
}
FRAMES = 130


def _world(subject: str, action: str) -> np.ndarray:
    """Joints (F, 32, 3), metres."""
    rng = np.random.default_rng(len(subject + action))
    angles = {
        "heading": np.linspace(0, 6, FRAMES),
        "left_hip_flexion": np.linspace(-0.3, 1.4, FRAMES),
        "right_shoulder_flexion": np.linspace(0.2, 2.4, FRAMES),
    }
    joints = pose_joints(bone_lengths(1600, rng), angles)
    joints[..., :2] += np.stack([np.linspace(-900, 900, FRAMES)] * 2, 1)[:, None]
    joints[..., 2] += 90 - joints[..., 2].min()
    all_32 = np.zeros((FRAMES, 32, 3), np.float32)
    all_32[:, H36M_17] = joints / 1000
    return all_32


def _pixels(camera: int, world: np.ndarray) -> np.ndarray:
    joints = CAMERAS[camera].to_camera(world[:, H36M_17] * 1000).reshape(-1, 3).astype(np.float64)
    image, _ = cv2.projectPoints(joints, np.zeros(3), np.zeros(3), LENS, DISTORTION)
    return image.reshape(len(world), 17, 2).astype(np.float32)


def _files() -> dict[str, dict[str, Any]]:
    poses = {s: {a: _world(s, a) for a in actions} for s, actions in SEQUENCES.items()}
    pixels = {
        subject: {action: [_pixels(i, world) for i in range(4)] for action, world in some.items()}
        for subject, some in poses.items()
    }
    longer = {
        subject: {
            action: [np.concatenate([part, part[:7]]) + 3 for part in parts]
            for action, parts in some.items()
        }
        for subject, some in pixels.items()
    }
    about = {"num_joints": 17, "keypoints_symmetry": [LEFT, RIGHT]}
    return {
        "data_3d_h36m.npz": {"positions_3d": poses},
        "data_2d_h36m_gt.npz": {"positions_2d": pixels, "metadata": about},
        "data_2d_h36m_cpn.npz": {"positions_2d": longer, "metadata": about},
    }


def _write(folder: Path, files: dict[str, dict[str, Any]]) -> Path:
    for name, arrays in files.items():
        np.savez_compressed(folder / name, **{k: np.array(v, object) for k, v in arrays.items()})
    return folder


def _import(path: Path, out: Path, **changes: object) -> Store:
    settings = {"image_size": 64, "workers": 1, **changes}
    IMPORTER.run(path, out, IMPORTER.options.model_validate(settings), silent)
    return open_store(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("videopose3d"), _files())


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return _import(folder, tmp_path_factory.mktemp("stores") / "poses")


def test_cameras_are_recovered_to_a_fraction_of_a_millimetre() -> None:
    world = _world("S1", "Directions 1")
    for i, camera in enumerate(CAMERAS):
        points = world[::10][:, H36M_17].reshape(-1, 3).astype(np.float64) * 1000
        fitted = fit_camera(points, _pixels(i, world)[::10].reshape(-1, 2), (1000, 1000))

        assert fitted.error_px < 0.1
        wanted = camera.to_camera(points.astype(np.float32))
        assert np.abs(fitted.to_camera(points) - wanted).max() < 2.0


def test_poses_are_in_camera_axes_and_millimetres(store: Store) -> None:
    rows = store.split("test")

    assert len(rows) == 4 * 3
    for i in range(len(rows)):
        assert store.metadata.motions[rows.motion[i]] == "S11/Discussion 2"
        world = _world("S11", "Discussion 2")[rows.frame[i] - 1, H36M_17] * 1000
        wanted = CAMERAS[rows.camera[i]].to_camera(world)
        np.testing.assert_allclose(rows.joints_3d[i], wanted, atol=2.0)
    assert set(rows.frame.tolist()) == {1, 65, 129}


def test_activities_have_one_name_whatever_the_file_says(store: Store) -> None:
    names = {
        split: {store.metadata.activities[i] for i in store.split(split).activity}
        for split in ("train", "val", "test")
    }

    assert names == {
        "train": {"Directions", "TakingPhoto", "WalkingTogether"},
        "val": {"WalkingDog"},
        "test": {"Discussion"},
    }


@pytest.mark.slow
def test_training_frames_are_those_that_move_and_halves_share_none(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    rows, everything = store.split("train"), _import(folder, tmp_path / "all", frames="all")
    one = rows.frame[(rows.motion == rows.motion[0]) & (rows.camera == 0)]
    world = _world("S1", "Directions 1")[:, H36M_17] * 1000
    moved = [
        np.linalg.norm(world[b - 1] - world[a - 1], axis=1).max()
        for a, b in itertools.pairwise(one)
    ]

    assert min(moved) > 40
    assert len(everything.split("train")) == 3 * 4 * FRAMES // 2
    assert len(everything.split("test")) == 4 * FRAMES
    assert everything.split("train").frame.max() == FRAMES // 2


def test_a_store_of_poses_has_no_images_and_says_so(store: Store, tmp_path: Path) -> None:
    assert not store.split("test").has_images
    with pytest.raises(BadInputError, match="test holds no image"):
        store.split("test").images([0])
    assert data.describe(store.root).facts["images"] == "none"
    data.draw_contact_sheet(store.root, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000


@pytest.mark.slow
def test_detections_may_be_named_instead_and_be_longer(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    other = _import(folder / "data_2d_h36m_cpn.npz", tmp_path / "store")

    assert len(other.split("test")) == len(store.split("test"))
    np.testing.assert_allclose(other.split("test").joints_3d, store.split("test").joints_3d)
    assert data.describe(other.root).facts["2D poses"] == "data_2d_h36m_cpn.npz"


@pytest.mark.slow
def test_a_frame_that_is_not_a_number_is_left_out(tmp_path: Path) -> None:
    files = _files()
    files["data_3d_h36m.npz"]["positions_3d"]["S11"]["Discussion 2"][64] = np.nan
    store = _import(_write(tmp_path, files), tmp_path / "store")

    assert len(store.split("test")) == 4 * 2
    assert store.metadata.skipped == {"joints are not numbers": 4}


class _Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil",)


def _pickled_code(files: dict[str, Any]) -> str:
    files["data_3d_h36m.npz"]["positions_3d"] = {"S1": _Evil()}
    return "its pickle asks for posix.system, which could run code"


@pytest.mark.slow
def test_files_of_old_numpy_versions_are_read(tmp_path: Path) -> None:
    files = {name: arrays for name, arrays in _files().items() if "cpn" not in name}
    _write(tmp_path, files)
    for file in tmp_path.iterdir():
        _rename_in_archive(file, b"numpy._core.multiarray", b"numpy.core.multiarray")

    assert len(_import(tmp_path, tmp_path / "store").split("test")) == 12


def _rename_in_archive(file: Path, old: bytes, new: bytes) -> None:
    """Write pickles as older versions do: in protocol 3 names stand in lines of their own."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert any(old in content for content in members.values())
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            at = content.index(b"\x80")  # the pickle's first byte, after the header
            value = pickle.loads(content[at:])
            pickled = pickle.dumps(value, protocol=2).replace(old, new)
            archive.writestr(name, content[:at] + pickled)


def _other_sides(files: dict[str, Any]) -> str:
    files["data_2d_h36m_gt.npz"]["metadata"]["keypoints_symmetry"] = [RIGHT, LEFT]
    return "unknown layout: 17 joints"


def _no_table(files: dict[str, Any]) -> str:
    files["data_3d_h36m.npz"]["positions_3d"]["S1"] = np.zeros((4, 32, 3))
    return "data_3d_h36m.npz: S1 is no table of poses by action"


def _no_array(files: dict[str, Any]) -> str:
    files["data_2d_h36m_gt.npz"].pop("positions_2d")
    return "array positions_2d is missing"


@pytest.mark.parametrize(
    "spoil",
    [
        _pickled_code,
        _other_sides,
        _no_table,
        _no_array,
    ],
)
@pytest.mark.slow
def test_a_bad_whole_is_one_clear_line(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], str]
) -> None:
    files = _files()
    expected = spoil(files)
    with pytest.raises(BadInputError) as caught:
        _import(_write(tmp_path, files), tmp_path / "store")

    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("evil").exists()


def test_what_is_no_list_of_cameras_is_left_out_alone(tmp_path: Path) -> None:
    files = _files()
    files["data_2d_h36m_gt.npz"]["positions_2d"]["S8"]["WalkDog 1"] = np.array(1.0)
    source = read_videopose3d(_write(tmp_path, files), Human36MOptions())

    skips = [(skip.item, skip.reason) for skip in source.skipped]
    assert skips == [("S8/WalkDog 1", "not 2D poses of 4 cameras")]


def test_a_sequence_of_another_form_is_left_out_alone(tmp_path: Path) -> None:
    files = _files()
    poses = files["data_3d_h36m.npz"]["positions_3d"]
    pixels = files["data_2d_h36m_gt.npz"]["positions_2d"]
    poses["S1"]["Swimming"] = poses["S1"]["Directions 1"]
    poses["S1"]["Eating"] = poses["S1"]["Directions 1"][:, :16]
    poses["S1"]["Posing"] = [[1.0], [2.0, 3.0]]
    pixels["S1"]["Photo"][1] = pixels["S1"]["Photo"][1][:, :16]
    pixels["S8"]["WalkDog 1"].pop()
    del pixels["S11"]
    source = read_videopose3d(_write(tmp_path, files), Human36MOptions())

    assert {(skip.split, skip.item, skip.reason) for skip in source.skipped} == {
        ("train", "S1/Swimming", "unknown activity"),
        ("train", "S1/Eating", "unknown layout: shape (130, 16, 3), must be (F, 32, 3)"),
        ("train", "S1/Posing", "not an array of numbers"),
        (
            "train",
            "S1/Photo camera 55011271",
            "unknown layout: shape (130, 16, 2), must be (F, 17, 2)",
        ),
        ("val", "S8/WalkDog 1", "not 2D poses of 4 cameras"),
        ("test", "S11/Discussion 2", "no 2D poses"),
    }
    assert source.rows["train"] > 0


@pytest.mark.slow
def test_a_camera_whose_2d_poses_are_others_is_left_out_and_named(tmp_path: Path) -> None:
    files = _files()
    for pixels in files["data_2d_h36m_gt.npz"]["positions_2d"]["S1"].values():
        pixels[1] = pixels[1][::-1]
    store = _import(_write(tmp_path, files), tmp_path / "store")

    skipped = (store.root / "skipped.csv").read_text(encoding="utf-8")
    assert skipped.count("camera 55011271,no camera sees the 3D poses where") == 3
    assert set(store.split("train").camera.tolist()) == {0, 2, 3}
    assert len(store.split("test")) == 12


def test_a_file_that_is_cut_off_is_one_clear_line(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:-200])

    with pytest.raises(BadInputError, match=r"data_3d_h36m\.npz: damaged, or not an \.npz file"):
        _import(tmp_path, tmp_path / "store")


def test_toes_are_not_in_these_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"hold the joints of h36m17"):
        _import(folder, tmp_path / "store", layout="keypointgan17")
