"""Looks at the files of a stage product before it is published: are all numbers finite?

Files are known by their ending: safetensors, .npy, .npz and .json. Others are not looked at.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ProductFaultError", "check_product"]

_FLOATS: Mapping[str, str] = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
"""NumPy's types of safetensors' names; BF16, which NumPy lacks, is looked at as bits."""
_AT_ONCE = 1 << 22
"""Numbers that are looked at together, so that a large file takes no memory."""


class ProductFaultError(ValueError):
    """A file of a stage product cannot be read, or holds a number that is not finite."""


def check_product(folder: Path) -> None:
    """Refuse a product with a file that cannot be read, or with numbers that are not finite.

    Raises:
        ProductFaultError: names the file, and the array in it.
    """
    readers = {
        ".safetensors": _check_safetensors,
        ".npy": _check_npy,
        ".npz": _check_npz,
        ".json": _check_json,
    }
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        check = readers.get(path.suffix)
        if check is None:
            continue
        try:
            check(path)
        except ProductFaultError as error:
            raise ProductFaultError(f"{path.relative_to(folder)}: {error}") from None
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise ProductFaultError(
                f"{path.relative_to(folder)}: cannot be read ({error})"
            ) from error


def _check_safetensors(path: Path) -> None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError(f"its header claims {length} bytes")
        header = json.loads(file.read(length))
    for name, tensor in header.items():
        kind = tensor.get("dtype")
        begin, end = tensor.get("data_offsets", (0, 0))
        if kind == "BF16":
            bits = _mapped(path, "<u2", 8 + length + begin, end - begin)
            _check_parts(name, ((part & 0x7F80) != 0x7F80 for part in _parts(bits)))
        elif kind in _FLOATS:
            _check_array(name, _mapped(path, _FLOATS[kind], 8 + length + begin, end - begin))


def _mapped(path: Path, kind: str, offset: int, size: int) -> NDArray[Any]:
    if not size:
        return np.empty(0, kind)
    count = size // np.dtype(kind).itemsize
    return np.memmap(path, kind, mode="r", offset=offset, shape=(count,))


def _check_npy(path: Path) -> None:
    _check_array("its array", np.load(path, mmap_mode="r", allow_pickle=False))


def _check_npz(path: Path) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            _check_array(name, arrays[name])


def _check_json(path: Path) -> None:
    def refuse(constant: str) -> Any:
        raise ProductFaultError(f"it holds {constant}")

    json.loads(path.read_bytes(), parse_constant=refuse)


def _check_array(name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind in "fc":
        _check_parts(name, (np.isfinite(part) for part in _parts(array)))


def _check_parts(name: str, finite: Iterator[NDArray[np.bool_]]) -> None:
    wrong = sum(int(part.size - np.count_nonzero(part)) for part in finite)
    if wrong:
        raise ProductFaultError(f"{wrong} numbers of {name} are not finite")


def _parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    flat = array.reshape(-1)
    for start in range(0, len(flat), _AT_ONCE):
        yield flat[start : start + _AT_ONCE]
