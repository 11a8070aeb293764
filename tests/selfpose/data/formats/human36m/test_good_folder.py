"""What a good folder of Human3.6M gives: its splits, rows, pictures and masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfpose import data
from selfpose.data.formats.human36m import IMPORTER
from selfpose.data.store import Store
from selfpose.method.skeleton import KEYPOINTGAN_17

Frames = Callable[[Store, str], set[tuple[str, int]]]
Import = Callable[..., Store]


def test_first_halves_give_images_and_second_halves_the_prior(whole_folder: Path) -> None:
    source = data.human36m.read_fetch(whole_folder, IMPORTER.options())

    assert source.rows == {
        "train": 4 * 4 + 4 * 2 + 3 * 3,
        "prior": 4 * 3 + 4 + 3 * 3,
        "val": 4 * 5,
        "test": 4 * 5 + 3 * 5,
    }


def test_no_frame_is_in_two_splits(store: Store, frames_in: Frames) -> None:
    assert frames_in(store, "train") == {
        *(("S1/Directions-1", frame) for frame in (1, 4, 9, 11)),
        *(("S1/TakingPhoto-1", frame) for frame in (2, 5)),
        *(("S5/WalkingTogether-2", frame) for frame in (1, 7, 8)),
    }
    assert frames_in(store, "val") == {("S8/WalkingDog-2", frame) for frame in (1, 3, 65, 70, 80)}
    motions = [store.metadata.motions[i] for i in store.split("prior").motion]
    assert sorted(motions) == sorted(
        ["S1/Directions-1"] * 12 + ["S1/TakingPhoto-1"] * 4 + ["S5/WalkingTogether-2"] * 9
    )


@pytest.mark.slow
def test_test_frames_are_every_64th_or_all(
    store: Store, whole_folder: Path, tmp_path: Path, import_folder: Import, frames_in: Frames
) -> None:
    everything = import_folder(whole_folder, tmp_path / "all", frames="all")

    assert frames_in(store, "test") == {
        *(("S9/Sitting-1", frame) for frame in (1, 65, 129, 193, 257)),
        *(("S11/Directions-2", frame) for frame in (1, 65, 129, 193, 257)),
    }
    assert ("S9/Sitting-1", 2) in frames_in(everything, "test")


@pytest.mark.slow
def test_without_validation_all_subjects_train(
    whole_folder: Path, tmp_path: Path, import_folder: Import, frames_in: Frames
) -> None:
    store = import_folder(whole_folder, tmp_path / "store", val="none")

    assert ("S8/WalkingDog-2", 1) in frames_in(store, "train")
    assert not frames_in(store, "train") & frames_in(store, "val")
    assert "NOT held out" in data.describe(store.root).facts["val"]


def test_a_limit_keeps_whole_frames_of_all_motions(
    whole_folder: Path, tmp_path: Path, import_folder: Import, frames_in: Frames
) -> None:
    store = import_folder(whole_folder, tmp_path / "store", limit=3)

    assert len(frames_in(store, "train")) == 3
    assert len({motion for motion, _ in frames_in(store, "train")}) == 3
    assert len(store.split("train")) == 4 + 4 + 3


def test_rows_keep_camera_activity_and_pose_although_cameras_are_stacked(
    store: Store, truth: Callable[..., Any]
) -> None:
    for name in ("train", "val", "test"):
        rows = store.split(name)
        for i in range(len(rows)):
            motion = store.metadata.motions[rows.motion[i]]
            expected = truth(motion, rows.frame[i], rows.camera[i])
            assert store.metadata.activities[rows.activity[i]] == motion.split("/")[1][:-2]
            assert rows.activity[i] == expected.action - 2
            assert motion.startswith(store.metadata.subjects[rows.subject[i]] + "/")
            np.testing.assert_allclose(rows.joints_3d[i], expected.joints, atol=0.1)
            frame, crop = expected.pixels, rows.joints_2d[i]
            scale = np.ptp(crop, axis=0).max() / np.ptp(frame, axis=0).max()
            np.testing.assert_allclose(crop, scale * (frame - frame[0]) + crop[0], atol=1e-3)


def test_the_corrupt_video_and_missing_cameras_are_named(
    store: Store, skipped: Callable[[Store], list[list[str]]]
) -> None:
    rows = store.split("test")
    cameras = {
        camera
        for camera, motion in zip(rows.camera.tolist(), rows.motion.tolist(), strict=True)
        if store.metadata.motions[motion] == "S11/Directions-2"
    }

    assert cameras == {1, 2, 3}
    assert skipped(store) == [
        ["test", "S11/Directions-2 camera 54138969", "corrupt video in the dataset"],
        ["train", "S5/WalkingTogether-2 camera 58860488", "missing camera"],
    ]


def test_keypointgan17_takes_toes_and_roots_at_its_pelvis(
    whole_folder: Path, tmp_path: Path, import_folder: Import
) -> None:
    store = import_folder(whole_folder.parent, tmp_path / "store", layout="keypointgan17")
    rows = store.split("train")

    assert store.layout is KEYPOINTGAN_17
    assert store.metadata.joints[3] == "right_toe"
    centred = rows.joints_3d - rows.joints_3d[:, store.layout.root, None]
    np.testing.assert_allclose(centred[:, 0], -centred[:, 4], atol=0.5)  # hips about the pelvis
    toe = np.linalg.norm(rows.joints_3d[:, 3] - rows.joints_3d[:, 2], axis=1)
    np.testing.assert_allclose(toe, np.linalg.norm((120, 60, -60)), rtol=1e-3)


def test_the_universal_skeleton_is_an_option(
    store: Store, whole_folder: Path, tmp_path: Path, import_folder: Import
) -> None:
    other = import_folder(whole_folder, tmp_path / "store", scale="universal")

    np.testing.assert_allclose(
        other.split("val").joints_3d, store.split("val").joints_3d * 0.9, rtol=1e-4
    )
    assert data.describe(other.root).facts["scale"] == "universal"


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


@pytest.mark.slow
def test_the_datasets_silhouettes_become_masks_and_can_remove_the_background(
    folder: Path, tmp_path: Path, write_masks: Callable[..., None], import_folder: Import
) -> None:
    write_masks()
    store = import_folder(folder, tmp_path / "store", image_size=64, background="remove")
    rows = store.split("train")
    images, masks = rows.images(np.arange(len(rows))), rows.masks(np.arange(len(rows)))

    assert masks is not None
    assert data.describe(store.root).facts["masks"].startswith("the dataset's; inside")
    assert images[masks == 0].max() == 0
    person = images[..., 0] > 150
    assert (masks[person] > 127).mean() > 0.95
    assert person.sum() > 0.6 * (masks > 127).sum()


@pytest.mark.slow
def test_boxes_are_cropped_to_and_bound_the_estimated_foreground(
    folder: Path, tmp_path: Path, write_masks: Callable[..., None], import_folder: Import
) -> None:
    write_masks(boxes=True)
    store = import_folder(folder, tmp_path / "store", image_size=64)
    rows = store.split("val")
    masks = rows.masks(np.arange(len(rows)))

    assert masks is not None
    assert 0.02 < (masks > 127).mean() < 0.4  # no boxes
    side = np.ptp(rows.joints_2d, axis=1).max(axis=1)
    assert (side < 2 / 1.25).all()  # the box is wider than the joints: by the limbs' width
    assert (side > 2 / 1.75).all()
