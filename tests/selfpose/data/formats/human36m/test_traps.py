"""Traps of Human3.6M: a bad item is left out and named, a bad whole is refused in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from pydantic import ValidationError

from posetune.api import BadInputError
from selfpose import data
from selfpose.data.formats.human36m import IMPORTER
from selfpose.data.formats.human36m_images import read_fetch
from selfpose.data.formats.human36m_protocol import Human36MOptions
from selfpose.data.store import Store

ANNOTATION = "S1/Directions-1/annot.h5"
FIRST = "S1/Directions-1/imageSequence/54138969/img_000001.jpg"

Import = Callable[..., Store]
Skipped = Callable[[Store], list[list[str]]]


def _annotation(folder: Path) -> h5py.File:
    return h5py.File(folder / ANNOTATION, "r+")


def _replace(folder: Path, key: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Give an array another shape."""
    with _annotation(folder) as h5:
        values = change(h5[key][()])
        del h5[key]
        h5[key] = values


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
    with _annotation(folder) as h5:
        h5["pose/2d"][0] = np.nan
    return "joints are not numbers"


def _nan_3d(folder: Path) -> str:
    with _annotation(folder) as h5:
        h5["pose/3d"][0] = np.nan
    return "joints are not numbers"


def _outside(folder: Path) -> str:
    with _annotation(folder) as h5:
        h5["pose/2d"][0, 0, 0] = 1004.0  # the pelvis, a little: the mean still agrees with 3D
    return "joints outside the picture"


def _action(folder: Path) -> str:
    with _annotation(folder) as h5:
        h5["action"][0] = 17
    return "unknown action"


@pytest.mark.parametrize(
    "spoil",
    [_cut_short, _no_picture, _words, _white, _nan_2d, _nan_3d, _outside, _action],
)
@pytest.mark.slow
def test_a_bad_item_is_left_out_named_and_counted(
    folder: Path,
    tmp_path: Path,
    import_folder: Import,
    skipped: Skipped,
    spoil: Callable[[Path], str],
) -> None:
    reason = spoil(folder)
    store = import_folder(folder, tmp_path / "store")

    assert len(store.split("train")) == 4 * 3 - 1
    assert store.metadata.skipped[reason] == 1
    assert ["train", FIRST, reason] in skipped(store)
    assert f"1: {reason}" in data.describe(store.root).facts["skipped"]
    with pytest.raises(BadInputError, match=r"leave out --strict"):
        import_folder(folder, tmp_path / "strict", strict=True)


@pytest.mark.slow
def test_a_folder_of_an_unknown_activity_is_named(
    folder: Path, tmp_path: Path, import_folder: Import, skipped: Skipped
) -> None:
    shutil.copytree(folder / "S1/Directions-1", folder / "S1/Swimming-1")
    store = import_folder(folder, tmp_path / "store")

    assert ["train", "S1/Swimming-1", "unknown activity"] in skipped(store)
    assert len(store.split("train")) == 4 * 3


def test_rows_whose_2d_and_3d_disagree_are_left_out(
    folder: Path, tmp_path: Path, import_folder: Import, skipped: Skipped
) -> None:
    with _annotation(folder) as h5:
        h5["pose/2d"][19:] -= 90
    store = import_folder(folder, tmp_path / "store")

    last = "S1/Directions-1/imageSequence/60457274/img_000017.jpg"
    assert [row[1] for row in skipped(store) if row[2] == "2D and 3D joints disagree"] == [last]


@pytest.mark.parametrize("lost", [-1, 7])
@pytest.mark.slow
def test_of_arrays_of_unequal_length_is_kept_what_has_both(
    whole_folder: Path,
    tmp_path: Path,
    import_folder: Import,
    store: Store,
    lost: int,
) -> None:
    folder = Path(shutil.copytree(whole_folder, tmp_path / "copy"))
    _replace(folder, "frame", lambda values: np.delete(values, lost))
    spoilt = import_folder(folder, tmp_path / "store")

    def rows(store: Store) -> int:
        name = store.metadata.motions.index("S1/Directions-1")
        return sum(int((store.split(s).motion == name).sum()) for s in ("train", "prior"))

    assert spoilt.metadata.skipped["wrong count: arrays of unequal length"] == 1
    if lost == -1:
        assert rows(spoilt) == rows(store) - 1
    else:  # every row behind it would have another row's picture
        assert spoilt.metadata.skipped["frames of a camera are not in order"] == 1
        assert rows(spoilt) == 0


def _truncated(folder: Path) -> str:
    file = folder / ANNOTATION
    file.write_bytes(file.read_bytes()[:-3000])
    return "not a readable HDF5 file, or cut off"


def _absent(folder: Path) -> str:
    (folder / ANNOTATION).unlink()
    return "no such file of annotations"


def _unknown_layout(folder: Path) -> str:
    _replace(folder, "pose/2d", lambda values: values[:, :31])
    return "unknown layout: pose/2d is float64 of shape (20, 31, 2), must be numbers of shape"


def _other_numbers(folder: Path) -> str:
    _replace(folder, "frame", lambda values: values[:, None])
    return "unknown layout: frame is int64 of shape (20, 1), must be numbers of shape (N)"


def _no_array(folder: Path) -> str:
    with _annotation(folder) as h5:
        del h5["pose/3d"]
    return "not in h36m-fetch's form"


@pytest.mark.parametrize("spoil", [_truncated, _absent, _unknown_layout, _other_numbers, _no_array])
def test_annotations_that_cannot_be_read_leave_out_their_sequence_alone(
    folder: Path, tmp_path: Path, import_folder: Import, spoil: Callable[[Path], str]
) -> None:
    reason = spoil(folder)
    source = read_fetch(folder, Human36MOptions())
    (skip,) = source.skipped

    assert skip[:2] == ("train", ANNOTATION)
    assert skip.reason.startswith(reason)
    assert {split: source.rows.get(split, 0) for split in ("train", "val", "test")} == {
        "train": 0,
        "val": 20,
        "test": 20,
    }
    with pytest.raises(BadInputError, match=r"S1/Directions-1/annot\.h5: .*leave out --strict"):
        import_folder(folder, tmp_path / "strict", strict=True)


@pytest.mark.slow
def test_a_split_that_loses_all_its_rows_stays_empty_and_says_so(
    folder: Path, tmp_path: Path, import_folder: Import, skipped: Skipped
) -> None:
    _truncated(folder)
    store = import_folder(folder, tmp_path / "store")

    assert (len(store.split("train")), len(store.split("val"))) == (0, 20)
    assert ["train", ANNOTATION, "not a readable HDF5 file, or cut off"] in skipped(store)
    assert "1: not a readable HDF5 file" in data.describe(store.root).quality["left out"]


def test_rows_of_a_camera_that_does_not_exist_are_left_out(folder: Path) -> None:
    with _annotation(folder) as h5:
        h5["camera"][3] = 12345678
    source = read_fetch(folder, Human36MOptions())

    assert [skip.item for skip in source.skipped] == ["S1/Directions-1 camera 12345678 (1 rows)"]
    assert source.skipped[0].reason.startswith("unknown camera: Human3.6M has 54138969, ")
    assert source.rows["train"] + source.rows["prior"] == 19


def _all_truncated(folder: Path) -> str:
    for file in folder.glob("*/*/annot.h5"):
        file.write_bytes(file.read_bytes()[:-3000])
    return "nothing can be imported; the first is S1/Directions-1/annot.h5: not a readable HDF5"


def _empty(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.mkdir()
    return "does not hold Human3.6M"


def _no_test(folder: Path) -> str:
    shutil.rmtree(folder / "S9")
    return "no row belongs to split test"


@pytest.mark.parametrize(
    "spoil",
    [_all_truncated, _empty, _no_test],
)
def test_a_bad_whole_is_one_clear_line(
    folder: Path, tmp_path: Path, import_folder: Import, spoil: Callable[[Path], str]
) -> None:
    expected = spoil(folder)
    with pytest.raises(BadInputError) as caught:
        import_folder(folder, tmp_path / "store")

    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("store*"))


@pytest.mark.slow
def test_masks_without_the_table_of_names_are_refused(
    folder: Path, tmp_path: Path, write_masks: Callable[..., None], import_folder: Import
) -> None:
    write_masks()
    (folder.parent / "metadata.xml").unlink()

    with pytest.raises(BadInputError, match=r"masks in MySegmentsMat, but no metadata\.xml"):
        import_folder(folder, tmp_path / "store")


@pytest.mark.parametrize("wrong", [{"layout": "coco"}, {"val": "S9"}, {"frames": "10"}])
def test_options_that_do_not_exist_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        IMPORTER.options.model_validate(wrong)


@pytest.mark.slow
def test_the_command_line_imports_shows_and_refuses(
    folder: Path, posetune: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        options = ("--format", "human36m", "--image-size", "32", *arguments)
        return posetune("data", "import", folder, *options)

    _cut_short(folder)
    made = run("--out", "store", "--encoding", "jpeg", "--workers", "2", "--json")
    info = posetune("data", "info", "store", "--json")
    _all_truncated(folder)
    refused = run("--out", "other")

    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["rows"] == {"train": 11, "prior": 8, "val": 20, "test": 20}
    assert "1: JPEG cut short" in json.loads(info.stdout)["facts"]["skipped"]
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "not a readable HDF5 file, or cut off" in refused.stderr.replace("\n", " ")
    assert not (folder.parent / "other").exists()
    assert "Traceback" not in refused.stderr
