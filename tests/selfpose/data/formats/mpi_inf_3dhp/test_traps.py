"""Traps of MPI-INF-3DHP: a bad item is left out and named, a bad whole is refused in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from posetune.api import BadInputError
from selfpose.data.formats.mpi_inf_3dhp import IMPORTER, read_mpi_inf_3dhp
from selfpose.data.formats.mpi_inf_train import read_train_sequence
from selfpose.data.plausibility import Checks
from selfpose.data.store import Store
from selfpose.method.skeleton import H36M_17

TRAINING = "S1/Seq1/annot.mat"
TEST = "mpi_inf_3dhp_test_set/TS1/annot_data.mat"
FIRST = "S1/Seq1/imageFrames/video_0/frame_000001.jpg"
FIRST_TEST = "mpi_inf_3dhp_test_set/TS1/imageSequence/img_000001.jpg"
ANKLE = 25
"""The right one, among the 28 joints of a training sequence."""

Import = Callable[..., Store]


@contextmanager
def _training(folder: Path) -> Iterator[dict[str, Any]]:
    """The first training sequence's annotation, written back with what was changed."""
    found = {k: v for k, v in loadmat(folder / TRAINING).items() if not k.startswith("__")}
    yield found
    savemat(folder / TRAINING, found)


def _test(folder: Path) -> h5py.File:
    return h5py.File(folder / TEST, "r+")


def _replace(folder: Path, key: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Give an array of the test sequence another shape."""
    with _test(folder) as h5:
        values = change(h5[key][()])
        del h5[key]
        h5[key] = values


def _cut_short(folder: Path) -> tuple[str, str]:
    content = (folder / FIRST).read_bytes()
    (folder / FIRST).write_bytes(content[: len(content) // 2])
    return FIRST, "JPEG cut short"


def _white(folder: Path) -> tuple[str, str]:
    cv2.imwrite(str(folder / FIRST), np.full((1024, 1024, 3), 254, np.uint8))
    return FIRST, "white picture"


def _nan(folder: Path) -> tuple[str, str]:
    with _training(folder) as found:
        found["univ_annot3"][0, 0][0, ANKLE * 3] = np.nan
    return FIRST, "joints are not numbers"


def _outside(folder: Path) -> tuple[str, str]:
    with _training(folder) as found:
        found["annot2"][0, 0][0, ANKLE * 2] = 2048 * 1.6
    return FIRST, "joints outside the picture"


def _disagree(folder: Path) -> tuple[str, str]:
    with _training(folder) as found:
        found["annot2"][0, 0][0] -= 90
    return FIRST, "2D and 3D joints disagree"


def _far_outside(folder: Path) -> tuple[str, str]:
    with _test(folder) as h5:
        h5["annot2"][0, 0, 5, 0] = 2048 * 1.3
    return FIRST_TEST, "joints outside the picture"


def _unequal(folder: Path) -> tuple[str, str]:
    with _training(folder) as found:
        found["annot2"][0, 0] = found["annot2"][0, 0][:-8]
    item = "S1/Seq1 camera 0 (2D, 3D, real 3D, frames: 4, 12, 12, 12)"
    return item, "wrong count: arrays of unequal length"


def _activity(folder: Path) -> tuple[str, str]:
    with _test(folder) as h5:
        h5["activity_annotation"][0] = 8
    return FIRST_TEST, "unknown activity"


def _short_valid(folder: Path) -> tuple[str, str]:
    _replace(folder, "valid_frame", lambda values: values[:-1])
    item = "TS1 (annot2 7, univ_annot3 7, annot3 7, valid_frame 6, activity_annotation 7)"
    return item, "wrong count: arrays of unequal length"


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil",
    [
        _cut_short,
        _white,
        _nan,
        _outside,
        _disagree,
        _far_outside,
        _unequal,
        _activity,
        _short_valid,
    ],
)
def test_a_bad_item_is_left_out_named_and_counted(
    folder: Path,
    tmp_path: Path,
    store: Store,
    import_folder: Import,
    skipped: Callable[[Store], dict[str, list[str]]],
    spoil: Callable[[Path], tuple[str, str]],
) -> None:
    item, reason = spoil(folder)
    spoilt = import_folder(folder, tmp_path / "store")

    assert item in skipped(spoilt)[reason]
    assert spoilt.metadata.skipped[reason] == store.metadata.skipped.get(reason, 0) + 1
    rows = [sum(len(s.split(name)) for name in ("train", "test")) for s in (store, spoilt)]
    assert rows[1] < rows[0]


@pytest.mark.slow
def test_a_test_joint_a_little_outside_the_picture_counts(
    folder: Path, tmp_path: Path, import_folder: Import
) -> None:
    with _test(folder) as h5:
        h5["annot2"][0, 0, 5, 0] = 2048 * 1.1

    assert len(import_folder(folder, tmp_path / "store").split("test")) == 2 * 6


def test_a_training_joint_a_little_outside_the_picture_counts_unless_people_must_be_whole(
    folder: Path,
) -> None:
    with _training(folder) as found:
        found["annot2"][0, 0][0, ANKLE * 2] = 2048 + 60
    for whole_people in (False, True):
        options = IMPORTER.options(whole_people=whole_people)
        checks = Checks(H36M_17)
        gathered = read_train_sequence(folder, "S1/Seq1", motion=0, options=options, checks=checks)
        left_out = [skip.item for skip in gathered.excluded if "outside" in skip.reason]
        assert left_out == [FIRST] * whole_people


def test_no_frame_is_in_both_halves_though_cameras_lose_different_frames(folder: Path) -> None:
    with _training(folder) as found:
        found["annot2"][0, 0][:4] = -9.0  # camera 0 sees nobody in the first frames
    options = IMPORTER.options()
    checks = Checks(H36M_17)
    gathered = read_train_sequence(folder, "S1/Seq1", motion=0, options=options, checks=checks)
    frames = {
        split: {frame for part in parts for frame in part.columns["frame"].tolist()}
        for split, parts in gathered.parts.items()
    }

    assert frames["train"] == {0, 10, 20, 30, 40}
    assert frames["prior"] == {50, 60, 6400, 6410}


def _truncated_v5(folder: Path) -> tuple[str, str]:
    file = folder / TRAINING
    file.write_bytes(file.read_bytes()[:5000])
    return TRAINING, "not a readable MATLAB file, or cut off"


def _absent(folder: Path) -> tuple[str, str]:
    (folder / TEST).unlink()
    return TEST, "no such file of annotations"


def _v73_for_v5(folder: Path) -> tuple[str, str]:
    head = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    v73 = head.ljust(512, b"\0") + (folder / TEST).read_bytes()[512:]
    (folder / TRAINING).write_bytes(v73)
    return TRAINING, "is a MATLAB v7.3 file; the dataset's own are v5"


def _truncated_v73(folder: Path) -> tuple[str, str]:
    file = folder / TEST
    file.write_bytes(file.read_bytes()[:-1000])
    return TEST, "not a readable MATLAB v7.3 file, or cut off"


def _unknown_camera(folder: Path) -> tuple[str, str]:
    with _training(folder) as found:
        found["cameras"] = np.arange(1, 15)[None]
    return TRAINING, "unknown camera 14; the dataset has 0 to 13"


def _unknown_layout(folder: Path) -> tuple[str, str]:
    with _training(folder) as found:
        for camera in range(14):
            for key, axes in (("annot2", 2), ("annot3", 3), ("univ_annot3", 3)):
                found[key][camera, 0] = found[key][camera, 0][:, : 17 * axes]
    return TRAINING, "unknown layout: camera 0 has 17 joints, must be 28"


def _unknown_test_layout(folder: Path) -> tuple[str, str]:
    _replace(folder, "univ_annot3", lambda values: values.transpose(3, 2, 1, 0))
    return TEST, "unknown layout: univ_annot3 is float64 of shape (3, 17, 1, 7), must be numbers"


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil",
    [
        *(_truncated_v5, _absent, _v73_for_v5, _truncated_v73, _unknown_camera, _unknown_layout),
        _unknown_test_layout,
    ],
)
def test_annotations_that_cannot_be_read_leave_out_their_sequence_alone(
    folder: Path, tmp_path: Path, import_folder: Import, spoil: Callable[[Path], tuple[str, str]]
) -> None:
    options, split = IMPORTER.options(), "train"
    good = read_mpi_inf_3dhp(folder, options)
    item, reason = spoil(folder)
    split = "test" if item == TEST else "train"
    source = read_mpi_inf_3dhp(folder, options)
    (skip,) = set(source.skipped) - set(good.skipped)

    assert skip[:2] == (split, item)
    assert skip.reason.startswith(reason)
    assert 0 < sum(source.rows.values()) < sum(good.rows.values())
    with pytest.raises(BadInputError, match=r"leave out --strict"):
        import_folder(folder, tmp_path / "strict", strict=True)


@pytest.mark.slow
def test_a_calibration_that_cannot_be_read_is_named_and_done_without(folder: Path) -> None:
    good = read_mpi_inf_3dhp(folder, IMPORTER.options())
    file = folder / "S1/Seq1/camera.calibration"
    file.write_text(file.read_text(encoding="utf-8").replace(" 0 0 0 1 ", " "), encoding="utf-8")
    source = read_mpi_inf_3dhp(folder, IMPORTER.options())
    (skip,) = set(source.skipped) - set(good.skipped)

    assert skip[:2] == ("train", "S1/Seq1/camera.calibration")
    assert skip.reason.startswith("not a table of cameras")
    assert source.rows == good.rows


def _all_truncated(folder: Path) -> str:
    for file in folder.rglob("annot*.mat"):
        file.write_bytes(file.read_bytes()[:5000])
    return "nothing can be imported; the first is S1/Seq1/annot.mat: not a readable MATLAB file"


def _no_test(folder: Path) -> str:
    shutil.rmtree(folder / "mpi_inf_3dhp_test_set")
    return "no row belongs to split test"


def _empty(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.mkdir()
    return "does not hold MPI-INF-3DHP"


@pytest.mark.parametrize(
    "spoil",
    [
        _all_truncated,
        _no_test,
        _empty,
    ],
)
def test_a_bad_whole_is_one_clear_line(
    folder: Path, tmp_path: Path, import_folder: Import, spoil: Callable[[Path], str]
) -> None:
    expected = spoil(folder)
    with pytest.raises(BadInputError) as caught:
        import_folder(folder, tmp_path / "store")

    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()
