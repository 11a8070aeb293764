"""MPI-INF-3DHP, on small folders made in its layout: real MATLAB v5 and v7.3, real JPEG."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from posetune.api import BadInputError, silent
from selfpose import data
from selfpose.data.cameras import CAMERAS, Camera, look_at
from selfpose.data.kinematics import bone_lengths, pose_joints
from selfpose.data.mpi_inf_3dhp import IMPORTER
from selfpose.data.mpi_inf_train import read_train_sequence
from selfpose.data.store import Store, open_store

FROM_28 = [4, 23, 24, 25, 18, 19, 20, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16]
FROM_17 = [14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]
PARENTS = (0, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
FRAMES = (0, 10, 15, 20, 30, 40, 50, 60, 6400, 6410, 6420, 6430)
UNIVERSAL = 0.95
PLACES: tuple[Camera, ...] = (
    *CAMERAS,
    *(look_at((3000 - 500 * i, 3500, 1500), (0, 0, 900)) for i in range(10)),
)

# sequence: how its pictures are named, their side, and the cameras that have some
SEQUENCES = {
    "S1/Seq1": ("{seq}/imageFrames/video_{camera}/frame_{number:06d}.jpg", 1024, (0, 8)),
    "S2/Seq2": ("{seq}/imageSequence/video_{camera}/img_{number:06d}.jpg", 768, (0, 1)),
    "S6/Seq2": ("{seq}/imageSequence/video_{camera}/img_{number:06d}.jpg", 512, (0, 2)),
    "S8/Seq1": ("images/{flat}_Cam{camera}_{number:06d}.jpg", 512, (4,)),
}
TESTS = {"TS1": (2048, 2048), "TS5": (1920, 1080)}
VALID = (1, 1, 0, 1, 1, 1, 1)


def _world(name: str, frames: int) -> np.ndarray:
    """Joints (F, 17, 3) in the order of h36m17, mm."""
    rng = np.random.default_rng(sum(map(ord, name)))
    angles = {
        "heading": np.linspace(0, 3, frames),
        "left_hip_flexion": np.linspace(-0.3, 0.9, frames),
        "right_shoulder_flexion": np.linspace(0.2, 1.4, frames),
    }
    joints = pose_joints(bone_lengths(1600, rng), angles)
    joints[..., :2] += np.linspace(-600, 600, frames)[:, None, None]
    joints[..., 2] += 90 - joints[..., 2].min()
    return joints.astype(np.float32)


def _project(joints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    focal = 1.1 * min(size)
    return joints[..., :2] / joints[..., 2:] * focal + np.asarray(size) / 2


def _draw(
    pixels: np.ndarray, size: tuple[int, int], *, frame: tuple[int, int], seed: int
) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(60, 120, (9, 9, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    scale = size[0] / frame[0]
    points = np.rint((pixels + 0.5) * scale - 0.5).astype(int).tolist()
    for child, parent in enumerate(PARENTS):
        cv2.line(picture, points[child], points[parent], (20, 20, 230), max(2, round(52 * scale)))
    return picture


def _poses(name: str, camera: int) -> tuple[np.ndarray, np.ndarray]:
    """Joints (F, 17, 3) in camera axes and (F, 17, 2) in pixels, h36m17."""
    joints = PLACES[camera].to_camera(_world(name, len(FRAMES)))
    return joints, _project(joints, (2048, 2048))


def _write_train(root: Path, name: str) -> None:
    pattern, side, with_pictures = SEQUENCES[name]
    cells = {key: np.empty((14, 1), dtype=object) for key in ("annot2", "annot3", "univ_annot3")}
    for camera in range(14):
        joints, pixels = _poses(name, camera)
        all_2d, all_3d = np.zeros((len(FRAMES), 28, 2)), np.zeros((len(FRAMES), 28, 3))
        all_2d[:, FROM_28], all_3d[:, FROM_28] = pixels, joints
        cells["annot2"][camera, 0] = all_2d.reshape(len(FRAMES), 56)
        cells["annot3"][camera, 0] = all_3d.reshape(len(FRAMES), 84)
        cells["univ_annot3"][camera, 0] = UNIVERSAL * all_3d.reshape(len(FRAMES), 84)
        if camera in with_pictures:
            for frame, points in zip(FRAMES, pixels, strict=True):
                numbered = pattern.format(
                    seq=name, flat=name.replace("/", "_"), camera=camera, number=frame + 1
                )
                (root / numbered).parent.mkdir(parents=True, exist_ok=True)
                picture = _draw(points, (side, side), frame=(2048, 2048), seed=camera)
                cv2.imwrite(str(root / numbered), picture)
    (root / name).mkdir(parents=True, exist_ok=True)
    numbers = {"cameras": np.arange(14)[None], "frames": np.asarray(FRAMES)[:, None]}
    savemat(root / name / "annot.mat", {**cells, **numbers})
    _write_calibration(root / name / "camera.calibration")


def _write_calibration(file: Path) -> None:
    lines = ["Skeletool Camera Calibration File V1.0"]
    focal, centre = 1.1 * 2048, 1024
    for camera in range(14):
        extrinsic = np.eye(4)
        extrinsic[:3, :3] = PLACES[camera].world_to_camera_33
        lines += [
            f"name          {camera}",
            "  sensor      10 10",
            "  size        2048 2048",
            "  animated    0",
            f"  intrinsic   {focal} 0 {centre} 0 0 {focal} {centre} 0 0 0 1 0 0 0 0 1 ",
            "  extrinsic   " + " ".join(map(str, extrinsic.reshape(-1))),
            "  radial      0",
        ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_test(root: Path, name: str) -> None:
    size = TESTS[name]
    folder = root / "mpi_inf_3dhp_test_set" / name
    (folder / "imageSequence").mkdir(parents=True)
    joints = PLACES[0].to_camera(_world(name, len(VALID)))
    pixels = _project(joints, size)
    for frame, points in enumerate(pixels):
        picture = _draw(points, size, frame=size, seed=3)
        cv2.imwrite(str(folder / "imageSequence" / f"img_{frame + 1:06d}.jpg"), picture)
    with h5py.File(folder / "annot_data.mat", "w", userblock_size=512) as h5:
        for key, values in (
            ("annot2", pixels),
            ("annot3", joints),
            ("univ_annot3", UNIVERSAL * joints),
        ):
            stored = np.zeros((len(VALID), 1, 17, values.shape[-1]))
            stored[:, 0, FROM_17] = values
            h5[key] = stored
        h5["valid_frame"] = np.asarray(VALID, float)[:, None]
        activities = np.asarray([1, 2, 0, 3, 4, 6, 7], float)
        h5["activity_annotation"] = activities[None] if name == "TS5" else activities[:, None]


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mpi_inf_3dhp")
    for name in SEQUENCES:
        _write_train(root, name)
    for name in TESTS:
        _write_test(root, name)
    return root


@pytest.fixture
def folder(whole_folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole_folder, tmp_path / "copy"))


def _import(folder: Path, out: Path, **changes: object) -> Store:
    settings = {"image_size": 32, "workers": 1, **changes}
    IMPORTER.run(folder, out, IMPORTER.options.model_validate(settings), silent)
    return open_store(out)


@pytest.fixture(scope="module")
def store(whole_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return _import(whole_folder, tmp_path_factory.mktemp("stores") / "3dhp", image_size=64)


def _skipped(store: Store) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (store.root / "skipped.csv").read_text(encoding="utf-8").splitlines()[1:]:
        _, item, reason = line.replace('"', "").rsplit(",", 2)[-3:]
        found.setdefault(reason, []).append(item)
    return found


def test_every_tenth_frame_inside_the_video_and_the_picture_is_used(store: Store) -> None:
    frames = [0, 10, 20, 30, 40, 50, 60, 6400, 6410]
    for split in ("train", "val"):
        rows = store.split(split)
        for i in range(len(rows)):
            motion = store.metadata.motions[rows.motion[i]]
            assert rows.frame[i] in frames or (motion == "S8/Seq1" and rows.frame[i] < 6468)
            _, pixels = _poses(motion, rows.camera[i])
            points = pixels[FRAMES.index(rows.frame[i])]
            assert (points >= 0).all()
            assert (points <= 2047).all()
    assert _skipped(store)["annotated past the video's end"] == [
        *("S1/Seq1 (2 frames)", "S2/Seq2 (4 frames)", "S6/Seq2 (4 frames)")
    ]
    assert set(store.split("val").camera.tolist()) == {4}
    assert store.split("val").frame.max() == 6430


def test_images_come_from_first_halves_and_the_prior_from_second(store: Store) -> None:
    rows = store.split("train")
    for motion in np.unique(rows.motion):
        assert rows.frame[rows.motion == motion].max() <= 40
    assert len(store.split("prior")) >= 0.5 * len(rows)


def test_no_frame_is_in_both_halves_though_cameras_lose_different_frames(
    folder: Path,
) -> None:
    def change(found: dict[str, Any]) -> None:
        found["annot2"][0, 0][:4] = -9.0  # camera 0 sees nobody in the first frames

    _edit_train(folder, change)
    options = IMPORTER.options()
    gathered = read_train_sequence(folder, "S1/Seq1", motion=0, options=options)
    frames = {
        split: {frame for part in parts for frame in part.columns["frame"].tolist()}
        for split, parts in gathered.parts.items()
    }

    assert frames["train"] == {0, 10, 20, 30, 40}
    assert frames["prior"] == {50, 60, 6400, 6410}


def test_all_three_schemes_of_names_and_scaled_pictures_are_cut_where_the_joints_are(
    store: Store,
) -> None:
    for name in ("train", "val", "test"):
        rows = store.split(name)
        images = rows.images(np.arange(len(rows))).astype(int)
        at = np.rint((rows.joints_2d + 1) * 63 / 2).astype(int)
        colours = images[np.arange(len(rows))[:, None], at[..., 1], at[..., 0]]
        assert (colours[..., 0] - colours[..., 1] > 70).mean() > 0.95
    motions = {store.metadata.motions[i] for i in store.split("train").motion}
    assert motions == {"S1/Seq1", "S2/Seq2", "S6/Seq2"}


@pytest.mark.parametrize("scale", ["universal", "real"])
def test_28_and_17_joints_become_the_layout_in_mm_in_camera_axes(
    store: Store, whole_folder: Path, tmp_path: Path, scale: str
) -> None:
    if scale == "real":
        store = _import(whole_folder, tmp_path / "store", scale="real")
    factor = UNIVERSAL if scale == "universal" else 1.0
    assert data.describe(store.root).facts["scale"] == scale
    for split in ("train", "val", "test"):
        rows = store.split(split)
        for i in range(len(rows)):
            motion, frame = store.metadata.motions[rows.motion[i]], rows.frame[i]
            if motion.startswith("TS"):
                joints = PLACES[0].to_camera(_world(motion, len(VALID)))[frame]
            else:
                joints = _poses(motion, rows.camera[i])[0][FRAMES.index(frame)]
            np.testing.assert_allclose(rows.joints_3d[i], factor * joints, atol=0.05)


def test_the_test_set_is_its_valid_frames_by_activity(store: Store) -> None:
    rows = store.split("test")
    names = [store.metadata.activities[i] for i in rows.activity]
    six = ["Standing/Walking", "Exercising", "Reaching/Crouching", "Sports", "Miscellaneous"]

    assert len(rows) == 2 * sum(VALID)
    assert names == [*six[:2], "Sitting", *six[2:]] * 2
    assert [store.metadata.motions[i] for i in rows.motion] == ["TS1"] * 6 + ["TS5"] * 6
    assert rows.frame.tolist() == [0, 1, 3, 4, 5, 6] * 2
    facts = data.describe(store.root).facts
    assert facts["test"] == "12 valid frames; the whole test set has 2929"
    assert _skipped(store)["frame not valid for the test"] == [
        *("TS1 (1 of 7 frames)", "TS5 (1 of 7 frames)")
    ]


def test_training_rows_say_their_sequence_as_activity(store: Store) -> None:
    rows = store.split("train")
    for i in range(len(rows)):
        motion = store.metadata.motions[rows.motion[i]]
        assert store.metadata.activities[rows.activity[i]] == f"Sequence {motion[-1]}"
        assert store.metadata.subjects[rows.subject[i]] == motion[:2]


def test_the_short_video_and_cameras_without_pictures_are_named(store: Store) -> None:
    skipped = _skipped(store)

    assert skipped["video too short in the dataset"] == ["S6/Seq2 camera 2"]
    assert "S1/Seq1 camera 1" in skipped["no pictures"]
    assert not any("camera 3" in item for item in skipped["no pictures"])  # nobody uses it
    kept = store.split("train")
    six = [i for i in range(len(kept)) if store.metadata.motions[kept.motion[i]] == "S6/Seq2"]
    assert set(kept.camera[six].tolist()) == {0}


def test_masks_are_estimated_from_each_cameras_background(store: Store) -> None:
    rows = store.split("train")
    masks, images = rows.masks(np.arange(len(rows))), rows.images(np.arange(len(rows)))
    assert masks is not None
    person = images[..., 0].astype(int) - images[..., 1] > 60

    assert (masks[person] > 127).mean() > 0.8
    assert (masks > 127).sum() < 1.7 * person.sum()


@pytest.mark.parametrize("inverted", [False, True])
def test_masks_that_were_unpacked_are_taken_whichever_way_round(
    folder: Path, tmp_path: Path, inverted: bool
) -> None:
    for name in SEQUENCES:
        for camera in SEQUENCES[name][2]:
            place = folder / name / "FGmasks" / f"video_{camera}"
            place.mkdir(parents=True)
            pattern = SEQUENCES[name][0].rsplit("/", 1)[1]
            for frame, points in zip(FRAMES, _poses(name, camera)[1], strict=True):
                picture = _draw(points, (512, 512), frame=(2048, 2048), seed=0)
                person = (picture[..., 2].astype(int) - picture[..., 1] > 100) != inverted
                mask = np.zeros((512, 512, 3), np.uint8)
                mask[..., 2] = person * np.uint8(255)
                file = pattern.format(flat=name.replace("/", "_"), camera=camera, number=frame + 1)
                cv2.imwrite(str((place / file).with_suffix(".png")), mask)
    store = _import(folder, tmp_path / "store", image_size=64)
    rows = store.split("train")
    masks, images = rows.masks(np.arange(len(rows))), rows.images(np.arange(len(rows)))
    assert masks is not None
    person = images[..., 0].astype(int) - images[..., 1] > 100

    assert data.describe(store.root).facts["masks"].startswith(f"{len(rows) + 12 - 1} the dataset")
    assert (masks[person] > 127).mean() > 0.9


def test_without_a_filter_all_frames_are_used(whole_folder: Path, tmp_path: Path) -> None:
    store = _import(whole_folder, tmp_path / "store", frames="all", val="none")

    assert 15 in store.split("train").frame
    assert "NOT held out" in data.describe(store.root).facts["val"]


def _edit_train(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "S1/Seq1/annot.mat"
    found = {key: value for key, value in loadmat(file).items() if not key.startswith("__")}
    change(found)
    savemat(file, found)


def _edit_test(folder: Path, key: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with h5py.File(folder / "mpi_inf_3dhp_test_set/TS1/annot_data.mat", "r+") as h5:
        values = change(h5[key][()])
        del h5[key]
        h5[key] = values


FIRST = "S1/Seq1/imageFrames/video_0/frame_000001.jpg"
FIRST_TEST = "mpi_inf_3dhp_test_set/TS1/imageSequence/img_000001.jpg"


def _cut_short(folder: Path) -> tuple[str, str]:
    content = (folder / FIRST).read_bytes()
    (folder / FIRST).write_bytes(content[: len(content) // 2])
    return FIRST, "JPEG cut short"


def _white(folder: Path) -> tuple[str, str]:
    cv2.imwrite(str(folder / FIRST), np.full((1024, 1024, 3), 254, np.uint8))
    return FIRST, "white picture"


def _nan(folder: Path) -> tuple[str, str]:
    def change(found: dict[str, Any]) -> None:
        found["univ_annot3"][0, 0][0, FROM_28[3] * 3] = np.nan

    _edit_train(folder, change)
    return FIRST, "joints are not numbers"


def _outside(folder: Path) -> tuple[str, str]:
    def change(found: dict[str, Any]) -> None:
        found["annot2"][0, 0][0, FROM_28[3] * 2] = 2048.0

    _edit_train(folder, change)
    return FIRST, "joints outside the picture"


def _disagree(folder: Path) -> tuple[str, str]:
    def change(found: dict[str, Any]) -> None:
        found["annot2"][0, 0][0] -= 90

    _edit_train(folder, change)
    return FIRST, "2D and 3D joints disagree"


def _far_outside(folder: Path) -> tuple[str, str]:
    def change(values: np.ndarray) -> np.ndarray:
        values[0, 0, 5, 0] = 2048 * 1.3
        return values

    _edit_test(folder, "annot2", change)
    return FIRST_TEST, "joints outside the picture"


def _unequal(folder: Path) -> tuple[str, str]:
    def change(found: dict[str, Any]) -> None:
        found["annot2"][0, 0] = found["annot2"][0, 0][:-1]

    _edit_train(folder, change)
    return "S1/Seq1 camera 0", "wrong count: arrays of unequal length"


def _activity(folder: Path) -> tuple[str, str]:
    def change(values: np.ndarray) -> np.ndarray:
        values[0] = 8
        return values

    _edit_test(folder, "activity_annotation", change)
    return FIRST_TEST, "unknown activity"


@pytest.mark.parametrize(
    "spoil",
    [_cut_short, _white, _nan, _outside, _disagree, _far_outside, _unequal, _activity],
)
def test_a_bad_item_is_left_out_named_and_counted(
    folder: Path, tmp_path: Path, store: Store, spoil: Callable[[Path], tuple[str, str]]
) -> None:
    item, reason = spoil(folder)
    spoilt = _import(folder, tmp_path / "store")

    assert item in _skipped(spoilt)[reason]
    assert spoilt.metadata.skipped[reason] == store.metadata.skipped.get(reason, 0) + 1
    rows = [sum(len(s.split(name)) for name in ("train", "test")) for s in (store, spoilt)]
    assert rows[1] < rows[0]


def test_a_test_joint_a_little_outside_the_picture_counts(folder: Path, tmp_path: Path) -> None:
    def change(values: np.ndarray) -> np.ndarray:
        values[0, 0, 5, 0] = 2048 * 1.1
        return values

    _edit_test(folder, "annot2", change)
    assert len(_import(folder, tmp_path / "store").split("test")) == 2 * sum(VALID)


def _truncated_v5(folder: Path) -> str:
    file = folder / "S1/Seq1/annot.mat"
    file.write_bytes(file.read_bytes()[:5000])
    return "S1/Seq1/annot.mat: not a readable MATLAB file, or cut off"


def _v73_for_v5(folder: Path) -> str:
    test = folder / "mpi_inf_3dhp_test_set/TS1/annot_data.mat"
    head = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (folder / "S1/Seq1/annot.mat").write_bytes(head.ljust(512, b"\0") + test.read_bytes()[512:])
    return "S1/Seq1/annot.mat: MATLAB v7.3; the dataset's own is v5"


def _truncated_v73(folder: Path) -> str:
    file = folder / "mpi_inf_3dhp_test_set/TS1/annot_data.mat"
    file.write_bytes(file.read_bytes()[:-1000])
    return "TS1/annot_data.mat: not a readable MATLAB v7.3 file, or cut off"


def _unknown_camera(folder: Path) -> str:
    _edit_train(folder, lambda found: found.update(cameras=np.arange(1, 15)[None]))
    return "S1/Seq1/annot.mat: unknown camera 14; there are 0 to 13"


def _unknown_layout(folder: Path) -> str:
    def change(found: dict[str, Any]) -> None:
        for i in range(14):
            found["annot2"][i, 0] = found["annot2"][i, 0][:, :34]
            for key in ("annot3", "univ_annot3"):
                found[key][i, 0] = found[key][i, 0][:, :51]

    _edit_train(folder, change)
    return "S1/Seq1/annot.mat: unknown layout: camera 0 has 17 joints, must be 28"


def _unknown_test_layout(folder: Path) -> str:
    _edit_test(folder, "univ_annot3", lambda values: values.transpose(3, 2, 1, 0))
    return "unknown layout: univ_annot3 has shape (3, 17, 1, 7), must be (7, 1, 17, 3)"


def _other_length(folder: Path) -> str:
    _edit_test(folder, "valid_frame", lambda values: values[:-1])
    return "valid_frame has 6 entries for 7 frames"


def _other_calibration(folder: Path) -> str:
    file = folder / "S1/Seq1/camera.calibration"
    file.write_text(file.read_text(encoding="utf-8").replace(" 0 0 0 1 ", " "), encoding="utf-8")
    return "S1/Seq1/camera.calibration: not a table of cameras"


def _no_test(folder: Path) -> str:
    shutil.rmtree(folder / "mpi_inf_3dhp_test_set")
    return "nothing falls into the split test"


def _empty(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.mkdir()
    return "no MPI-INF-3DHP here"


@pytest.mark.parametrize(
    "spoil",
    [
        *(_truncated_v5, _v73_for_v5, _truncated_v73, _unknown_camera, _unknown_layout),
        *(_unknown_test_layout, _other_length, _other_calibration, _no_test, _empty),
    ],
)
def test_a_bad_whole_is_one_clear_line(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    expected = spoil(folder)
    with pytest.raises(BadInputError) as caught:
        _import(folder, tmp_path / "store")

    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()
