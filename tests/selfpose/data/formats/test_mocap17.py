from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from posetune.api import BadInputError, silent
from selfpose.data.formats.mocap17 import IMPORTER, Mocap17Options, read_mocap17
from selfpose.data.sources import Skip
from selfpose.data.store import open_store
from selfpose.data.synthetic.motions import Corpus

Damage = Callable[[Path], str]


def _import(file: Path, out: Path) -> None:
    options = Mocap17Options(image_size=32, views=1, level="plain", workers=1)
    IMPORTER.run(file, out, options, silent)


def test_all_frames_of_a_file_come_into_the_store_once(mocap17_file: Path, tmp_path: Path) -> None:
    _import(mocap17_file, tmp_path / "store")
    store = open_store(tmp_path / "store")
    with h5py.File(mocap17_file) as h5:
        frames = {group: len(h5[f"{group}/frame"]) for group in ("train", "val", "test")}
        file_activity = h5["test/activity"][()]

    assert len(store.split("train")) + len(store.split("prior")) == frames["train"]
    assert (len(store.split("val")), len(store.split("test"))) == (frames["val"], frames["test"])
    np.testing.assert_array_equal(store.split("test").activity, file_activity)
    assert store.metadata.activities == ("Walking", "Waiting")
    assert "made for a test" in store.metadata.licence
    assert str(tmp_path) not in (tmp_path / "store" / "metadata.json").read_text(encoding="utf-8")


def test_motions_are_placed_on_the_floor_near_the_middle_and_keep_their_pose(
    mocap17_file: Path,
) -> None:
    corpus = read_mocap17(mocap17_file, seed=0)
    with h5py.File(mocap17_file) as h5:
        original = h5["val/positions"][:5]
    placed = next(motion for motion in corpus.motions if motion.split == "val").joints_fj3

    assert placed[:, [3, 6], 2].min() == pytest.approx(90, abs=0.1)
    assert np.abs(placed[:, 0, :2]).max() <= 900.1
    np.testing.assert_allclose(placed - placed[:, :1], original - original[:, :1], atol=0.01)


def test_the_place_in_the_room_follows_the_seed(mocap17_file: Path) -> None:
    first, again, other = (
        read_mocap17(mocap17_file, seed=seed).motions[0].joints_fj3 for seed in (0, 0, 1)
    )

    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1


def _absent(file: Path) -> str:
    file.unlink()
    return "no such file"


def _not_hdf5(file: Path) -> str:
    file.write_text("positions of people", encoding="utf-8")
    return "not a readable HDF5 file"


def _cut_off(file: Path) -> str:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    return "not a readable HDF5 file, or cut off"


def _no_group(file: Path) -> str:
    with h5py.File(file, "a") as h5:
        del h5["val"]
    return "there is no dataset val/positions"


def _no_column(file: Path) -> str:
    with h5py.File(file, "a") as h5:
        del h5["test/motion"]
    return "there is no dataset test/motion"


def _replace(file: Path, name: str, values: object) -> None:
    with h5py.File(file, "a") as h5:
        del h5[name]
        h5[name] = values


def _wrong_shape(file: Path) -> str:
    _replace(file, "train/positions", np.zeros((40, 16, 3), dtype=np.float32))
    return "train/positions has shape (40, 16, 3), must be (N, 17, 3)"


def _wrong_length(file: Path) -> str:
    _replace(file, "val/frame", np.zeros(3, dtype=np.int32))
    return "val/frame is int32 of shape (3,)"


def _wrong_type(file: Path) -> str:
    _replace(file, "val/activity", np.zeros(10, dtype=np.float32))
    return "val/activity is float32"


def _words(file: Path) -> str:
    _replace(file, "test/positions", ["a", "b"])
    return "test/positions"


def _other_joints(file: Path) -> str:
    with h5py.File(file, "a") as h5:
        h5.attrs["joints"] = ["hip", "knee"]
    return "unknown joint layout in attribute joints: hip, knee"


def _joints_with_lines(file: Path) -> str:
    with h5py.File(file, "a") as h5:
        h5.attrs["joints"] = ["pel\nvis", *["x" * 1000] * 16]
    return "unknown joint layout in attribute joints: pel vis"


def _no_joints(file: Path) -> str:
    with h5py.File(file, "a") as h5:
        del h5.attrs["joints"]
    return "the root attribute joints is missing"


def _other_parents(file: Path) -> str:
    with h5py.File(file, "a") as h5:
        h5.attrs["parents"] = list(range(-1, 16))
    return "attribute parents is [-1, 0, 1"


def _metres(file: Path) -> str:
    with h5py.File(file, "a") as h5:
        h5.attrs["units"] = "metres"
    return "attribute units is 'metres'"


@pytest.mark.parametrize(
    "damage",
    [
        *(_absent, _not_hdf5, _cut_off, _no_group, _no_column, _wrong_shape, _wrong_length),
        *(_wrong_type, _words, _other_joints, _no_joints, _other_parents, _joints_with_lines),
        _metres,
    ],
)
def test_a_broken_file_is_refused_in_one_line_and_leaves_nothing(
    mocap17_file: Path, tmp_path: Path, damage: Damage
) -> None:
    expected = damage(mocap17_file)

    with pytest.raises(BadInputError) as caught:
        _import(mocap17_file, tmp_path / "store")

    message = str(caught.value)
    assert message.startswith(str(mocap17_file))
    assert expected in message
    assert "\n" not in message
    assert [entry for entry in tmp_path.iterdir() if entry != mocap17_file] == []


@pytest.mark.parametrize(("column", "limit"), [("activity", 1), ("subject", 11), ("motion", 11)])
def test_rows_whose_numbers_name_nothing_are_left_out(
    mocap17_file: Path, column: str, limit: int
) -> None:
    good = read_mocap17(mocap17_file, seed=0)
    with h5py.File(mocap17_file, "a") as h5:
        h5[f"val/{column}"][3] = -1
        h5[f"val/{column}"][7] = limit + 1
    corpus = read_mocap17(mocap17_file, seed=0)

    reason = f"{column} is not within 0..{limit}"
    assert corpus.skipped == (Skip("val", "val row 3", reason), Skip("val", "val row 7", reason))
    assert _frames(corpus) == _frames(good) - 2


def _frames(corpus: Corpus) -> int:
    return sum(len(motion.frame_f) for motion in corpus.motions)


def test_a_changed_file_is_not_taken_for_the_one_that_was_imported(
    mocap17_file: Path, tmp_path: Path
) -> None:
    _import(mocap17_file, tmp_path / "store")
    with h5py.File(mocap17_file, "a") as h5:
        h5["val/positions"][0, 0, 0] += 1

    with pytest.raises(BadInputError, match="made with source_sha256"):
        _import(mocap17_file, tmp_path / "store")


@pytest.mark.slow
def test_a_real_file_is_read_whole(mocap_file: Path) -> None:
    corpus = read_mocap17(mocap_file, seed=0)

    assert {motion.split for motion in corpus.motions} == {"train", "prior", "val", "test"}
    assert len(corpus.activities) == 15
    for motion in corpus.motions:
        assert motion.joints_fj3[:, [3, 6], 2].min() == pytest.approx(90, abs=0.5)
        assert np.abs(motion.joints_fj3[:, 0, :2]).max() <= 901
