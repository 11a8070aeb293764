"""Human3.6M, on small folders made in h36m-fetch's layout: real HDF5, MATLAB v7.3 and JPEG."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from pydantic import ValidationError

from posetune.api import BadInputError, silent
from selfpose import data
from selfpose.data.cameras import CAMERAS
from selfpose.data.human36m import IMPORTER
from selfpose.data.kinematics import bone_lengths, pose_joints
from selfpose.data.store import Store, open_store
from selfpose.skeleton import KEYPOINTGAN_17

CAMERA_IDS = (54138969, 55011271, 58860488, 60457274)
HEIGHTS = (1002, 1000, 1000, 1002)
H36M_17 = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
FETCH_ORDER = (1145.0, 512.5, 1143.0, 508.5)
"""fx, cx, fy, cy."""

# sequence: action, frames. Two cameras of one are missing; S9 and S11 keep other frames than 64ths.
SEQUENCES: dict[str, tuple[int, tuple[int, ...]]] = {
    "S1/Directions-1": (2, (1, 4, 9, 11, 17, 20, 23)),
    "S1/TakingPhoto-1": (12, (2, 5, 6)),
    "S5/WalkingTogether-2": (16, (1, 7, 8, 9, 10, 11)),
    "S8/WalkingDog-2": (15, (1, 3, 65, 70, 80)),
    "S9/Sitting-1": (9, (1, 2, 65, 129, 193, 257)),
    "S11/Directions-2": (2, (1, 65, 129, 193, 257)),
}
MISSING = ("S5/WalkingTogether-2", 58860488)


def _poses(name: str, frames: tuple[int, ...]) -> np.ndarray:
    """World poses (F, 32, 3) of somebody who walks through the room."""
    rng = np.random.default_rng(len(name))
    angles = {
        "heading": np.linspace(0, 3, len(frames)),
        "left_hip_flexion": np.linspace(-0.3, 0.9, len(frames)),
        "right_shoulder_flexion": np.linspace(0.2, 1.4, len(frames)),
    }
    joints = pose_joints(bone_lengths(1600, rng), angles)
    joints[..., :2] += np.linspace(-700, 700, len(frames))[:, None, None]
    joints[..., 2] += 90 - joints[..., 2].min()
    all_32 = np.zeros((len(frames), 32, 3))
    all_32[:, H36M_17] = joints
    all_32[:, 11] = all_32[:, 0]  # the pelvis stands in the dataset twice
    for ankle, toe in ((3, 5), (8, 10)):
        all_32[:, toe] = all_32[:, ankle] + (120.0, 60.0, -60.0)
    return all_32


def _project(joints: np.ndarray) -> np.ndarray:
    fx, cx, fy, cy = FETCH_ORDER
    return joints[..., :2] / joints[..., 2:] * (fx, fy) + (cx, cy)


def _background(camera: int) -> np.ndarray:
    coarse = np.random.default_rng(camera).integers(60, 120, (12, 12, 3), dtype=np.uint8)
    return cv2.resize(coarse, (1000, HEIGHTS[camera]), interpolation=cv2.INTER_CUBIC)


def _draw(camera: int, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The person, red, before the camera's background; and the mask of it."""
    mask = np.zeros((HEIGHTS[camera], 1000), np.uint8)
    points = np.rint(pixels[H36M_17]).astype(int).tolist()
    for child, parent in zip(
        range(1, 17), (0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15), strict=True
    ):
        cv2.line(mask, points[child], points[parent], 255, 26)
    picture = _background(camera)
    picture[mask > 0] = (20, 20, 230)
    return picture, mask


def _write_sequence(root: Path, name: str, action: int, frames: tuple[int, ...]) -> None:
    world = _poses(name, frames)
    columns: dict[str, list[Any]] = {}
    present = [i for i, camera in enumerate(CAMERA_IDS) if (name, camera) != MISSING]
    for i in present:
        joints = CAMERAS[i].to_camera(world.astype(np.float32)).astype(np.float64)
        pixels = _project(joints)
        folder = root / name / "imageSequence" / str(CAMERA_IDS[i])
        folder.mkdir(parents=True)
        for frame, points in zip(frames, pixels, strict=True):
            cv2.imwrite(str(folder / f"img_{frame:06d}.jpg"), _draw(i, points)[0])
        count = len(frames)
        for key, values in {
            "pose/2d": pixels,
            "pose/3d": joints,
            "pose/3d-univ": joints * 0.9,
            "frame": np.asarray(frames),
            "camera": np.full(count, CAMERA_IDS[i]),
            "subject": np.full(count, int(name.split("/")[0][1:])),
            "action": np.full(count, action),
            "subaction": np.full(count, int(name[-1])),
        }.items():
            columns.setdefault(key, []).append(values)
    with h5py.File(root / name / "annot.h5", "w") as h5:
        for key, parts in columns.items():
            h5[key] = np.concatenate(parts)
        for i in present:
            h5[f"intrinsics/{CAMERA_IDS[i]}"] = FETCH_ORDER
            h5[f"intrinsics-univ/{CAMERA_IDS[i]}"] = FETCH_ORDER


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("h36m") / "processed"
    for name, (action, frames) in SEQUENCES.items():
        _write_sequence(root, name, action, frames)
    return root


SMALL: dict[str, tuple[int, tuple[int, ...]]] = {
    "S1/Directions-1": (2, (1, 4, 9, 11, 17)),
    "S8/WalkingDog-2": (15, (1, 3, 5, 7, 9)),
    "S9/Sitting-1": (9, (1, 65, 129, 193, 257)),
}


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    for name, (action, frames) in SMALL.items():
        _write_sequence(root, name, action, frames)
    return root


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(small_folder, tmp_path / "copy" / "processed"))


def _import(folder: Path, out: Path, **changes: object) -> Store:
    settings = {"image_size": 32, "workers": 1, **changes}
    IMPORTER.run(folder, out, IMPORTER.options.model_validate(settings), silent)
    return open_store(out)


@pytest.fixture(scope="module")
def store(whole_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return _import(whole_folder, tmp_path_factory.mktemp("stores") / "h36m", image_size=64)


def _frames(store: Store, split: str) -> set[tuple[str, int]]:
    rows = store.split(split)
    names = [store.metadata.motions[i] for i in rows.motion]
    return set(zip(names, rows.frame.tolist(), strict=True))


def _skipped(store: Store) -> list[list[str]]:
    lines = (store.root / "skipped.csv").read_text(encoding="utf-8").splitlines()[1:]
    return [line.split(",", 2) for line in lines]


def test_first_halves_give_images_and_second_halves_the_prior(whole_folder: Path) -> None:
    source = data.human36m.read_fetch(whole_folder, IMPORTER.options())

    assert source.rows == {
        "train": 4 * 4 + 4 * 2 + 3 * 3,
        "prior": 4 * 3 + 4 + 3 * 3,
        "val": 4 * 5,
        "test": 4 * 5 + 3 * 5,
    }


def test_no_frame_is_in_two_splits(store: Store, whole_folder: Path) -> None:
    train = _frames(store, "train")

    assert train == {
        *(("S1/Directions-1", frame) for frame in (1, 4, 9, 11)),
        *(("S1/TakingPhoto-1", frame) for frame in (2, 5)),
        *(("S5/WalkingTogether-2", frame) for frame in (1, 7, 8)),
    }
    assert _frames(store, "val") == {("S8/WalkingDog-2", frame) for frame in (1, 3, 65, 70, 80)}
    motions = [store.metadata.motions[i] for i in store.split("prior").motion]
    assert sorted(motions) == sorted(
        ["S1/Directions-1"] * 12 + ["S1/TakingPhoto-1"] * 4 + ["S5/WalkingTogether-2"] * 9
    )


def test_test_frames_are_every_64th_or_all(
    store: Store, whole_folder: Path, tmp_path: Path
) -> None:
    everything = _import(whole_folder, tmp_path / "all", frames="all")

    assert _frames(store, "test") == {
        *(("S9/Sitting-1", frame) for frame in (1, 65, 129, 193, 257)),
        *(("S11/Directions-2", frame) for frame in (1, 65, 129, 193, 257)),
    }
    assert ("S9/Sitting-1", 2) in _frames(everything, "test")


def test_rows_keep_camera_activity_and_pose_although_cameras_are_stacked(store: Store) -> None:
    for name in ("train", "val", "test"):
        rows = store.split(name)
        for i in range(len(rows)):
            motion = store.metadata.motions[rows.motion[i]]
            action, frames = SEQUENCES[motion]
            assert store.metadata.activities[rows.activity[i]] == motion.split("/")[1][:-2]
            assert rows.activity[i] == action - 2
            assert motion.startswith(store.metadata.subjects[rows.subject[i]] + "/")
            world = _poses(motion, frames)[frames.index(rows.frame[i])][H36M_17]
            camera = CAMERAS[rows.camera[i]].to_camera(world.astype(np.float32))
            np.testing.assert_allclose(rows.joints_3d[i], camera, atol=0.1)
            frame, crop = _project(camera), rows.joints_2d[i]
            scale = np.ptp(crop, axis=0).max() / np.ptp(frame, axis=0).max()
            np.testing.assert_allclose(crop, scale * (frame - frame[0]) + crop[0], atol=1e-3)


def test_the_corrupt_video_and_missing_cameras_are_named(store: Store) -> None:
    rows = store.split("test")
    cameras = {
        camera
        for camera, motion in zip(rows.camera.tolist(), rows.motion.tolist(), strict=True)
        if store.metadata.motions[motion] == "S11/Directions-2"
    }

    assert cameras == {1, 2, 3}
    assert _skipped(store) == [
        ["test", "S11/Directions-2 camera 54138969", "corrupt video in the dataset"],
        ["train", "S5/WalkingTogether-2 camera 58860488", "missing camera"],
    ]


def test_pictures_are_cut_where_the_joints_are(store: Store) -> None:
    for name in ("train", "val", "test"):
        rows = store.split(name)
        images = rows.images(np.arange(len(rows))).astype(int)
        at = np.rint((rows.joints_2d + 1) * 63 / 2).astype(int)
        colours = images[np.arange(len(rows))[:, None], at[..., 1], at[..., 0]]

        assert (colours[..., 0] - colours[..., 1] > 80).mean() > 0.97  # RGB: the person is red
        assert not (images[:, 0, 0, 0] - images[:, 0, 0, 1] > 80).any()


def test_without_masks_the_person_is_what_differs_from_the_median_picture(store: Store) -> None:
    for name in ("train", "val"):
        rows = store.split(name)
        masks, images = rows.masks(np.arange(len(rows))), rows.images(np.arange(len(rows)))
        person = images[..., 0].astype(int) - images[..., 1] > 60

    assert masks is not None
    assert (masks[person] > 127).mean() > 0.85
    assert (masks > 127).sum() < 1.6 * person.sum()
    assert "median picture" in data.describe(store.root).facts["masks"]


def _write_masks(root: Path, kind: str, *, boxes: bool = False) -> None:
    """The dataset's masks, and its table of names: MATLAB v7.3, one reference per frame."""
    rows = [
        "<td>Action</td><td>subaction</td><td>S1</td><td>S5</td><td>S8</td><td>S9</td><td>S11</td>"
    ]
    for name, (action, frames) in SMALL.items():
        subject, sequence = name.split("/")
        stem = f"{sequence[:-2]} {action}"
        cells = "".join(
            f"<td>{stem if s == subject else 'x'}</td>" for s in ("S1", "S5", "S8", "S9", "S11")
        )
        rows.append(f"<td>{action}</td><td>{name[-1]}</td>{cells}")
        world = _poses(name, frames)
        for i, camera in enumerate(CAMERA_IDS):
            joints = CAMERAS[i].to_camera(world.astype(np.float32)).astype(np.float64)
            masks = [_draw(i, points)[1] > 0 for points in _project(joints)]
            if boxes:
                masks = [_fill_box(mask) for mask in masks]
            file = root / subject / "MySegmentsMat" / kind / f"{stem}.{camera}.mat"
            file.parent.mkdir(parents=True, exist_ok=True)
            _write_mat73(file, dict(zip(frames, masks, strict=True)), max(frames))
    table = "".join(f"<tr>{row}</tr>" for row in rows)
    (root.parent / "metadata.xml").write_text(
        f"<m><mapping>{table}</mapping></m>", encoding="utf-8"
    )


def _fill_box(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    filled = np.zeros_like(mask)
    filled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return filled


def _write_mat73(file: Path, masks: dict[int, np.ndarray], count: int) -> None:
    with h5py.File(file, "w", userblock_size=512) as h5:
        references = np.empty((count, 1), dtype=h5py.ref_dtype)
        blank = h5.create_dataset("#refs#/blank", data=np.zeros((2, 2), np.uint8))
        for i in range(count):
            references[i, 0] = blank.ref
        for frame, mask in masks.items():
            stored = h5.create_dataset(
                f"#refs#/{frame}", data=mask.T.astype(np.uint8), compression="gzip"
            )
            references[frame - 1, 0] = stored.ref
        h5.create_dataset("Masks", data=references, dtype=h5py.ref_dtype)


def test_the_datasets_silhouettes_become_masks_and_can_remove_the_background(
    folder: Path, tmp_path: Path
) -> None:
    _write_masks(folder, "ground_truth_bs")
    store = _import(folder, tmp_path / "store", image_size=64, background="remove")
    rows = store.split("train")
    images, masks = rows.images(np.arange(len(rows))), rows.masks(np.arange(len(rows)))

    assert masks is not None
    assert data.describe(store.root).facts["masks"].startswith("the dataset's; inside")
    assert images[masks == 0].max() == 0
    person = images[..., 0] > 150
    assert (masks[person] > 127).mean() > 0.95
    assert person.sum() > 0.6 * (masks > 127).sum()


def test_boxes_are_cropped_to_and_bound_the_estimated_foreground(
    folder: Path, tmp_path: Path
) -> None:
    _write_masks(folder, "ground_truth_bb", boxes=True)
    store = _import(folder, tmp_path / "store", image_size=64)
    rows = store.split("val")
    masks = rows.masks(np.arange(len(rows)))

    assert masks is not None
    assert 0.02 < (masks > 127).mean() < 0.4  # no boxes
    side = np.ptp(rows.joints_2d, axis=1).max(axis=1)
    assert (side < 2 / 1.25).all()  # the box is wider than the joints: by the limbs' width
    assert (side > 2 / 1.75).all()


def test_masks_without_the_table_of_names_are_refused(folder: Path, tmp_path: Path) -> None:
    _write_masks(folder, "ground_truth_bs")
    (folder.parent / "metadata.xml").unlink()

    with pytest.raises(BadInputError, match=r"masks in MySegmentsMat, but no metadata\.xml"):
        _import(folder, tmp_path / "store")


def test_keypointgan17_takes_toes_and_roots_at_its_pelvis(
    whole_folder: Path, tmp_path: Path
) -> None:
    store = _import(whole_folder.parent, tmp_path / "store", layout="keypointgan17")
    rows = store.split("train")

    assert store.layout is KEYPOINTGAN_17
    assert store.metadata.joints[3] == "right_toe"
    centred = rows.joints_3d - rows.joints_3d[:, store.layout.root, None]
    np.testing.assert_allclose(centred[:, 0], -centred[:, 4], atol=0.5)  # hips about the pelvis
    toe = np.linalg.norm(rows.joints_3d[:, 3] - rows.joints_3d[:, 2], axis=1)
    np.testing.assert_allclose(toe, np.linalg.norm((120, 60, -60)), rtol=1e-3)


def test_the_universal_skeleton_is_an_option(
    store: Store, whole_folder: Path, tmp_path: Path
) -> None:
    other = _import(whole_folder, tmp_path / "store", scale="universal")

    np.testing.assert_allclose(
        other.split("val").joints_3d, store.split("val").joints_3d * 0.9, rtol=1e-4
    )
    assert data.describe(other.root).facts["scale"] == "universal"


def test_without_validation_all_subjects_train(whole_folder: Path, tmp_path: Path) -> None:
    store = _import(whole_folder, tmp_path / "store", val="none")

    assert ("S8/WalkingDog-2", 1) in _frames(store, "train")
    assert not _frames(store, "train") & _frames(store, "val")
    assert "NOT held out" in data.describe(store.root).facts["val"]


def test_a_limit_keeps_whole_frames_of_all_motions(whole_folder: Path, tmp_path: Path) -> None:
    store = _import(whole_folder, tmp_path / "store", limit=3)

    assert len(_frames(store, "train")) == 3
    assert len({motion for motion, _ in _frames(store, "train")}) == 3
    assert len(store.split("train")) == 4 + 4 + 3


FIRST = "S1/Directions-1/imageSequence/54138969/img_000001.jpg"


def _edit(folder: Path, key: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with h5py.File(folder / "S1/Directions-1/annot.h5", "r+") as h5:
        values = change(h5[key][()])
        del h5[key]
        h5[key] = values


def _with(row: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[row] = value
        return values

    return change


def _cut_short(folder: Path) -> str:
    content = (folder / FIRST).read_bytes()
    (folder / FIRST).write_bytes(content[: len(content) * 2 // 3])
    return "JPEG cut short"


def _no_picture(folder: Path) -> str:
    (folder / FIRST).unlink()
    return "no such picture"


def _words(folder: Path) -> str:
    (folder / FIRST).write_text("not a picture", encoding="utf-8")
    return "not a picture"


def _white(folder: Path) -> str:
    cv2.imwrite(str(folder / FIRST), np.full((1002, 1000, 3), 255, np.uint8))
    return "white picture"


def _nan_2d(folder: Path) -> str:
    _edit(folder, "pose/2d", _with(0, np.nan))
    return "joints are not numbers"


def _nan_3d(folder: Path) -> str:
    _edit(folder, "pose/3d", _with(0, np.nan))
    return "joints are not numbers"


def _outside(folder: Path) -> str:
    def change(values: np.ndarray) -> np.ndarray:
        values[0, 0, 0] = 1004.0  # the pelvis, a little: the mean still agrees with 3D
        return values

    _edit(folder, "pose/2d", change)
    return "joints outside the picture"


def _disagree(folder: Path) -> str:
    _edit(
        folder, "pose/2d", lambda values: values + np.arange(len(values))[:, None, None] // -27 * 90
    )
    return "2D and 3D joints disagree"


def _action(folder: Path) -> str:
    _edit(folder, "action", _with(0, 17))
    return "unknown action"


@pytest.mark.parametrize(
    "spoil",
    [_cut_short, _no_picture, _words, _white, _nan_2d, _nan_3d, _outside, _action],
)
def test_a_bad_item_is_left_out_named_and_counted(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    reason = spoil(folder)
    store = _import(folder, tmp_path / "store")

    assert len(store.split("train")) == 4 * 3 - 1
    assert store.metadata.skipped[reason] == 1
    assert ["train", FIRST, reason] in _skipped(store)
    assert f"1: {reason}" in data.describe(store.root).facts["skipped"]
    with pytest.raises(BadInputError, match=r"leave out --strict"):
        _import(folder, tmp_path / "strict", strict=True)


def test_rows_whose_2d_and_3d_disagree_are_left_out(folder: Path, tmp_path: Path) -> None:
    _edit(folder, "pose/2d", lambda values: np.concatenate([values[:19], values[19:] - 90]))
    store = _import(folder, tmp_path / "store")

    last = "S1/Directions-1/imageSequence/60457274/img_000017.jpg"
    assert [row[1] for row in _skipped(store) if row[2] == "2D and 3D joints disagree"] == [last]


def test_a_sequence_with_arrays_of_unequal_length_is_left_out(
    whole_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole_folder, tmp_path / "copy"))
    _edit(folder, "frame", lambda values: values[:-1])
    store = _import(folder, tmp_path / "store")

    assert store.metadata.skipped["wrong count: arrays of unequal length"] == 1
    assert not any(motion == "S1/Directions-1" for motion, _ in _frames(store, "train"))


def _truncated(folder: Path) -> str:
    file = folder / "S1/Directions-1/annot.h5"
    file.write_bytes(file.read_bytes()[:-3000])
    return "annot.h5: not a readable HDF5 file, or cut off"


def _unknown_camera(folder: Path) -> str:
    _edit(folder, "camera", _with(3, 12345678))
    return "annot.h5: unknown camera 12345678; Human3.6M has 54138969"


def _unknown_layout(folder: Path) -> str:
    _edit(folder, "pose/2d", lambda values: values[:, :31])
    return "annot.h5: unknown layout: pose/2d has shape"


def _no_array(folder: Path) -> str:
    with h5py.File(folder / "S1/Directions-1/annot.h5", "r+") as h5:
        del h5["pose/3d"]
    return "annot.h5: not in h36m-fetch's form"


def _empty(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.mkdir()
    return "no Human3.6M here"


def _no_test(folder: Path) -> str:
    shutil.rmtree(folder / "S9")
    return "nothing falls into the split test"


@pytest.mark.parametrize(
    "spoil", [_truncated, _unknown_camera, _unknown_layout, _no_array, _empty, _no_test]
)
def test_a_bad_whole_is_one_clear_line(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    expected = spoil(folder)
    with pytest.raises(BadInputError) as caught:
        _import(folder, tmp_path / "store")

    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("store*"))


@pytest.mark.parametrize("wrong", [{"layout": "coco"}, {"val": "S9"}, {"frames": "10"}])
def test_options_that_do_not_exist_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        IMPORTER.options.model_validate(wrong)


@pytest.mark.slow
def test_the_command_line_imports_shows_and_refuses(folder: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from posetune.cli.app import app

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "posetune.cli", "data", "import", str(folder)]
        command += ["--format", "human36m", "--image-size", "32", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    _cut_short(folder)
    made = run("--out", "store", "--encoding", "jpeg", "--workers", "2", "--json")
    info = CliRunner().invoke(app, ["data", "info", str(tmp_path / "store"), "--json"])
    _truncated(folder)
    refused = run("--out", "other")

    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["rows"] == {"train": 11, "prior": 8, "val": 20, "test": 20}
    assert "1: JPEG cut short" in json.loads(info.stdout)["facts"]["skipped"]
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "annot.h5: not a readable HDF5 file, or cut off" in refused.stderr
    assert "Traceback" not in refused.stderr
