"""Reads MATLAB files (version 5) in a process of its own.

scipy's reader can be brought to a crash by changed bytes: of 3,000 changed files seven ended it by
a segmentation fault. In a process of its own that is an error like any other. What it has read
comes back as plain arrays in files, never as a pickle.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import math
import multiprocessing
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MatlabFileError", "NewerMatlabFileError", "read_matlab"]

_MOST_BYTES = 8 * 1024**3
"""Memory that one file's arrays may take, in bytes; the largest of the known data sets takes 1."""
_PATIENCE_S = 900.0
"""Seconds after which reading one file is given up."""
_ARRAYS, _FAULT = "arrays.npz", "fault.json"


class MatlabFileError(ValueError):
    """A file is no MATLAB file, is damaged, or takes more than it may."""


class NewerMatlabFileError(MatlabFileError):
    """A file is of MATLAB's version 7.3, which is HDF5."""


def read_matlab(file: Path, names: Sequence[str]) -> dict[str, list[NDArray[Any]]]:
    """Return variables of a file: for each the arrays of its cells, or the one array that it is.

    Args:
        file: the file.
        names: the variables' names; those that are not in the file are left out.

    Raises:
        FileNotFoundError: there is no such file.
        MatlabFileError: it cannot be read; `NewerMatlabFileError` for version 7.3.
    """
    if not file.is_file():
        raise FileNotFoundError(file)
    import scipy.io  # noqa: F401 - the process below starts with what this one has imported

    with tempfile.TemporaryDirectory(prefix="posetune-matlab-") as folder:
        # Forked, since a new interpreter takes a second for each of many files; the reader uses
        # nothing that another thread of this process may hold.
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_read, args=(file, tuple(names), Path(folder)))
        process.start()
        process.join(_PATIENCE_S)
        if process.is_alive():
            process.kill()
            process.join()
        return _collect(Path(folder), process.exitcode)


def _collect(folder: Path, code: int | None) -> dict[str, list[NDArray[Any]]]:
    """Return what the process has written, or raise what it says."""
    with contextlib.suppress(FileNotFoundError):
        fault = json.loads((folder / _FAULT).read_text(encoding="utf-8"))
        if fault == NotImplementedError.__name__:
            raise NewerMatlabFileError("MATLAB v7.3")
        raise MatlabFileError(fault)
    if code != 0 or not (folder / _ARRAYS).exists():
        raise MatlabFileError(f"its reader ended with code {code}")
    found: dict[str, list[NDArray[Any]]] = {}
    with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
        for key in arrays.files:
            name, _, _ = key.partition("/")
            found.setdefault(name, []).append(arrays[key])
    return found


def _read(file: Path, names: tuple[str, ...], folder: Path) -> None:
    """Read the variables into a folder; this is what the process does."""
    from scipy.io import loadmat, whosmat

    faulthandler.disable()  # a crash is expected here, and told by the exit code
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * _MOST_BYTES, resource.RLIM_INFINITY))
    try:
        for name, shape, _ in whosmat(str(file), appendmat=False):
            if name in names and 8 * math.prod(shape) > _MOST_BYTES:
                raise ValueError(f"{name} has shape {tuple(shape)}")
        found = loadmat(str(file), appendmat=False, variable_names=names)
        arrays: dict[str, Any] = {
            f"{name}/{number:09d}": cell
            for name in names
            if name in found
            for number, cell in enumerate(_cells(found[name]))
        }
        np.savez(folder / _ARRAYS, **arrays)
    except NotImplementedError:  # scipy raises it for version 7.3
        (folder / _FAULT).write_text(json.dumps(NotImplementedError.__name__), encoding="utf-8")
    except Exception as error:  # noqa: BLE001 - the process's border; its reader raises anything
        said = f"{type(error).__name__}: {error}"
        (folder / _FAULT).write_text(json.dumps(said[:500]), encoding="utf-8")


def _cells(value: Any) -> list[NDArray[Any]]:
    """Return the arrays of numbers of a cell array, or the array of numbers itself."""
    array = np.asarray(value)
    cells = [array] if array.dtype != object else [np.asarray(cell) for cell in array.reshape(-1)]
    for cell in cells:
        if cell.dtype.kind not in "biuf":
            raise TypeError(f"holds {cell.dtype}, must be numbers")
    return cells
