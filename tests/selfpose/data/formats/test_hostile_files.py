"""npz and MATLAB files that are made to do harm end in one line."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from posetune.api import BadInputError
from selfpose.data.formats import matlab
from selfpose.data.formats.matlab import MatlabFileError, read_matlab
from selfpose.data.formats.npz import read_object


def write_npz(file: Path, payload: bytes, *, method: int = zipfile.ZIP_STORED) -> Path:
    """Write an array of one Python object whose pickle is the payload."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("poses.npy", start + payload)
    return file


@pytest.mark.parametrize(
    "payload",
    [
        b"c_codecs\nencode\n(Vx\nVno_such_encoding\ntR.",
        b"c_codecs\nencode\n(Vx\nVzlib_codec\ntR.",
        b"cnumpy\nndarray\n((I1000000000000\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000000\ntS'O'\ntR.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"(" * 10_000,
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"",
        pickle.dumps({"a": 1}),
    ],
)
def test_a_pickle_that_is_no_array_of_data_is_one_line(tmp_path: Path, payload: bytes) -> None:
    file = write_npz(tmp_path / "x.npz", payload)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadInputError, match=r"x\.npz: damaged, or not an \.npz file") as raised:
        read_object(file, "poses")
    assert "\n" not in str(raised.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 100_000  # KB


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    os.mkfifo(file)
    with pytest.raises(BadInputError, match=r"x\.npz: is no file"):
        read_object(file, "poses")


@pytest.mark.slow
def test_a_member_that_unpacks_to_much_more_than_its_size_is_refused(tmp_path: Path) -> None:
    payload = b"\0" * 200_000_000
    file = write_npz(tmp_path / "bomb.npz", payload, method=zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 300_000
    with pytest.raises(BadInputError, match=r"poses\.npy unpacks from 0\.[0-9]+ to 200 MB"):
        read_object(file, "poses")


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_tables_of_poses_are_read(tmp_path: Path, version: tuple[int, int]) -> None:
    poses = {"S1": {"Walking": np.arange(6.0).reshape(2, 3)}, "fps": np.float64(50)}
    np.savez_compressed(tmp_path / "good.npz", poses=np.asarray(poses, dtype=object))
    found = read_object(tmp_path / "good.npz", "poses")
    np.testing.assert_array_equal(found["S1"]["Walking"], poses["S1"]["Walking"])
    assert found["fps"] == 50


@pytest.fixture
def mat(tmp_path: Path) -> Path:
    cells = np.empty((2, 1), object)
    cells[0, 0], cells[1, 0] = np.arange(6.0).reshape(2, 3), np.ones((1, 3))
    savemat(tmp_path / "a.mat", {"cells": cells, "plain": np.arange(4.0), "text": "words"})
    return tmp_path / "a.mat"


def test_cells_and_plain_arrays_are_read(mat: Path) -> None:
    found = read_matlab(mat, ("cells", "plain", "none"))
    assert set(found) == {"cells", "plain"}
    np.testing.assert_array_equal(found["cells"][0], np.arange(6.0).reshape(2, 3))
    assert [part.shape for part in found["cells"]] == [(2, 3), (1, 3)]
    np.testing.assert_array_equal(found["plain"][0].reshape(-1), np.arange(4.0))


def test_texts_and_no_matlab_files_are_refused(mat: Path, tmp_path: Path) -> None:
    with pytest.raises(MatlabFileError, match="must be numbers"):
        read_matlab(mat, ("text",))
    (tmp_path / "b.mat").write_bytes(b"no such file" * 100)
    with pytest.raises(MatlabFileError):
        read_matlab(tmp_path / "b.mat", ("cells",))
    with pytest.raises(FileNotFoundError):
        read_matlab(tmp_path / "none.mat", ("cells",))


def test_a_reader_that_crashes_is_an_error_and_no_crash(
    mat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As scipy's does on some files: its process is killed by the system."""

    def crash(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    monkeypatch.setattr(matlab, "_cells", crash)  # the process is forked, and has it, too
    with pytest.raises(MatlabFileError, match="its reader ended with code -11"):
        read_matlab(mat, ("cells",))


@pytest.mark.slow
def test_changed_bytes_are_an_error_or_an_array(mat: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    good = np.frombuffer(mat.read_bytes(), np.uint8)
    for _ in range(40):
        changed = good.copy()
        places = generator.integers(128, len(good), 3)
        changed[places] = generator.integers(0, 256, 3)
        (tmp_path / "changed.mat").write_bytes(changed.tobytes())
        with contextlib.suppress(MatlabFileError):
            read_matlab(tmp_path / "changed.mat", ("cells", "plain"))
