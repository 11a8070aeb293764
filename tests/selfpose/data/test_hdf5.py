"""Datasets of other files, and datasets that claim more than is there, are not read."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from posetune.api import BadInputError
from selfpose.data.formats.mocap17 import read_mocap17
from selfpose.data.hdf5 import UnsafeDatasetError, find_dataset, read_dataset

Make = Callable[[h5py.File, Path], object]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another file, with bytes that are nobody's business."""
    with h5py.File(tmp_path / "other.h5", "w") as h5:
        h5["secret"] = np.arange(10.0)
    return tmp_path / "other.h5"


def external_link(h5: h5py.File, other: Path) -> None:
    h5["wanted"] = h5py.ExternalLink(str(other), "/secret")


def external_group(h5: h5py.File, other: Path) -> None:
    h5["a"] = h5py.ExternalLink(str(other), "/")


def soft_link(h5: h5py.File, other: Path) -> None:
    h5["real"] = np.arange(3)
    h5["wanted"] = h5py.SoftLink("/real")


def external_storage(h5: h5py.File, other: Path) -> None:
    h5.create_dataset("wanted", (10,), "f8", external=[(str(other), 0, 80)])


def virtual(h5: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((10,), "f8")
    layout[:] = h5py.VirtualSource(str(other), "secret", (10,))
    h5.create_virtual_dataset("wanted", layout)


def huge(h5: h5py.File, other: Path) -> None:
    h5.create_dataset("wanted", (10**12,), "f8", chunks=(1000,))


def unfilled(h5: h5py.File, other: Path) -> None:
    h5.create_dataset("wanted", (20_000_000, 17, 3), "f4", chunks=(1000, 17, 3))


@pytest.mark.parametrize(
    ("make", "name", "said"),
    [
        (external_link, "wanted", "is a link to another place"),
        (external_group, "a/secret", "is a link to another place"),
        (soft_link, "wanted", "is a link to another place"),
        (external_storage, "wanted", "is stored in another file"),
        (virtual, "wanted", "is stored in another file"),
        (huge, "wanted", r"has shape \(1000000000000,\): 8e\+03 GB, more than"),
        (unfilled, "wanted", r"has shape \(20000000, 17, 3\), but only 0 bytes"),
    ],
)
def test_what_is_not_in_the_file_is_not_read(
    tmp_path: Path, other: Path, make: Make, name: str, said: str
) -> None:
    with h5py.File(tmp_path / "made.h5", "w") as h5:
        make(h5, other)
    with (
        h5py.File(tmp_path / "made.h5") as h5,
        pytest.raises(UnsafeDatasetError, match=said),
    ):
        read_dataset(h5, name)


def test_a_dataset_of_the_file_is_read_also_when_it_is_compressed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "made.h5", "w") as h5:
        h5["a/plain"] = np.arange(5)
        h5.create_dataset("a/zeros", data=np.zeros(100_000), compression="gzip")
        np.testing.assert_array_equal(read_dataset(h5, "a/plain"), np.arange(5))
        assert read_dataset(h5, "a/zeros").sum() == 0
        for name in ("a", "none", "a/none", "a/plain/deeper"):
            with pytest.raises(KeyError):
                find_dataset(h5, name)


def test_rows_that_were_never_written_are_refused_before_they_take_memory(
    mocap17_file: Path,
) -> None:
    with h5py.File(mocap17_file, "r+") as h5:
        del h5["train/positions"]
        h5.create_dataset("train/positions", (20_000_000, 17, 3), "f4", chunks=(1000, 17, 3))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadInputError, match=r"only 0 bytes of it are in the file") as raised:
        read_mocap17(mocap17_file, seed=0)
    assert "\n" not in str(raised.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 300_000  # KB


def test_positions_of_another_file_are_refused(mocap17_file: Path, other: Path) -> None:
    with h5py.File(mocap17_file, "r+") as h5:
        del h5["val/positions"]
        h5["val/positions"] = h5py.ExternalLink(str(other), "/secret")
    with pytest.raises(BadInputError, match=r"val/positions is a link to another place"):
        read_mocap17(mocap17_file, seed=0)
