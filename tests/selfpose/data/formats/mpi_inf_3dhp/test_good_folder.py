"""What a good folder of MPI-INF-3DHP gives: its splits, rows, pictures and masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfpose import data
from selfpose.data.store import Store

Import = Callable[..., Store]
Skipped = Callable[[Store], dict[str, list[str]]]


def test_every_tenth_frame_inside_the_video_and_the_picture_is_used(
    store: Store, truth: Callable[..., Any], skipped: Skipped
) -> None:
    frames = [0, 10, 20, 30, 40, 50, 60, 6400, 6410]
    for split in ("train", "val"):
        rows = store.split(split)
        for i in range(len(rows)):
            motion = store.metadata.motions[rows.motion[i]]
            assert rows.frame[i] in frames or (motion == "S8/Seq1" and rows.frame[i] < 6468)
            points = truth(motion, rows.frame[i], rows.camera[i]).pixels
            assert (points >= 0).all()
            assert (points <= 2047).all()
    assert skipped(store)["annotated past the video's end"] == [
        *("S1/Seq1 (2 frames)", "S2/Seq2 (4 frames)", "S6/Seq2 (4 frames)")
    ]
    assert set(store.split("val").camera.tolist()) == {4}
    assert store.split("val").frame.max() == 6430


@pytest.mark.slow
def test_without_a_filter_all_frames_are_used(
    whole_folder: Path, tmp_path: Path, import_folder: Import
) -> None:
    store = import_folder(whole_folder, tmp_path / "store", frames="all", val="none")

    assert 15 in store.split("train").frame
    assert "NOT held out" in data.describe(store.root).facts["val"]


def test_images_come_from_first_halves_and_the_prior_from_second(store: Store) -> None:
    rows = store.split("train")
    for motion in np.unique(rows.motion):
        assert rows.frame[rows.motion == motion].max() <= 40
    assert len(store.split("prior")) >= 0.5 * len(rows)


def test_training_rows_say_their_sequence_as_activity(store: Store) -> None:
    rows = store.split("train")
    for i in range(len(rows)):
        motion = store.metadata.motions[rows.motion[i]]
        assert store.metadata.activities[rows.activity[i]] == f"Sequence {motion[-1]}"
        assert store.metadata.subjects[rows.subject[i]] == motion[:2]


def test_the_test_set_is_its_valid_frames_by_activity(store: Store, skipped: Skipped) -> None:
    rows = store.split("test")
    names = [store.metadata.activities[i] for i in rows.activity]
    five = ["Standing/Walking", "Exercising", "Reaching/Crouching", "Sports", "Miscellaneous"]

    assert len(rows) == 2 * 6
    assert names == [*five[:2], "Sitting", *five[2:]] * 2
    assert [store.metadata.motions[i] for i in rows.motion] == ["TS1"] * 6 + ["TS5"] * 6
    assert rows.frame.tolist() == [0, 1, 3, 4, 5, 6] * 2
    facts = data.describe(store.root).facts
    assert facts["test"] == "12 valid frames; the whole test set has 2929"
    assert skipped(store)["frame not valid for the test"] == [
        *("TS1 (1 of 7 frames)", "TS5 (1 of 7 frames)")
    ]


def test_the_short_video_and_cameras_without_pictures_are_named(
    store: Store, skipped: Skipped
) -> None:
    left_out = skipped(store)

    assert left_out["video too short in the dataset"] == ["S6/Seq2 camera 2"]
    assert "S1/Seq1 camera 1" in left_out["no pictures"]
    assert not any("camera 3" in item for item in left_out["no pictures"])  # nobody uses it
    kept = store.split("train")
    six = [i for i in range(len(kept)) if store.metadata.motions[kept.motion[i]] == "S6/Seq2"]
    assert set(kept.camera[six].tolist()) == {0}


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["universal", "real"])
def test_28_and_17_joints_become_the_layout_in_mm_in_camera_axes(
    store: Store,
    whole_folder: Path,
    tmp_path: Path,
    import_folder: Import,
    truth: Callable[..., Any],
    scale: str,
) -> None:
    if scale == "real":
        store = import_folder(whole_folder, tmp_path / "store", scale="real")
    assert data.describe(store.root).facts["scale"] == scale
    for split in ("train", "val", "test"):
        rows = store.split(split)
        for i in range(len(rows)):
            shown = truth(store.metadata.motions[rows.motion[i]], rows.frame[i], rows.camera[i])
            expected = shown.universal if scale == "universal" else shown.joints
            np.testing.assert_allclose(rows.joints_3d[i], expected, atol=0.05)


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


def test_masks_are_estimated_from_each_cameras_background(store: Store) -> None:
    rows = store.split("train")
    masks, images = rows.masks(np.arange(len(rows))), rows.images(np.arange(len(rows)))
    assert masks is not None
    person = images[..., 0].astype(int) - images[..., 1] > 60

    assert (masks[person] > 127).mean() > 0.8
    assert (masks > 127).sum() < 1.7 * person.sum()


@pytest.mark.slow
@pytest.mark.parametrize("inverted", [False, True])
def test_masks_that_were_unpacked_are_taken_whichever_way_round(
    folder: Path,
    tmp_path: Path,
    write_masks: Callable[..., None],
    import_folder: Import,
    inverted: bool,
) -> None:
    write_masks(inverted=inverted)
    store = import_folder(folder, tmp_path / "store", image_size=64)
    rows = store.split("train")
    masks, images = rows.masks(np.arange(len(rows))), rows.images(np.arange(len(rows)))
    assert masks is not None
    person = images[..., 0].astype(int) - images[..., 1] > 100

    assert data.describe(store.root).facts["masks"].startswith(f"{len(rows) + 12 - 1} the dataset")
    assert (masks[person] > 127).mean() > 0.9
