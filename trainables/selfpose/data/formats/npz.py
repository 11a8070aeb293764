"""Reads arrays of Python objects from .npz files without running code that a pickle may name.

Such an array is a pickle, and a pickle can call any function. This reader builds arrays, numbers,
texts and containers, and refuses everything else.
"""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError

__all__ = ["read_object"]

_MOST_BYTES = 4 * 1024**3
"""Size of the largest array that is read, in bytes."""
_ALWAYS_BYTES = 64 * 1024**2
"""Size below which an array may be as well compressed as it likes."""
_MOST_RATIO = 200
"""How often larger an array may be than its part of the file; poses come to about 2."""


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type of an array from its header."""
    form = np.lib.format
    is_first = form.read_magic(member) == (1, 0)
    return (form.read_array_header_1_0 if is_first else form.read_array_header_2_0)(member)


def _rebuild(kind: object, shape: object, code: object) -> NDArray[Any]:
    """Make the empty array that a pickle fills next; numpy's own would make one of any size."""
    return np.empty(0, np.uint8)


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes that a pickle of Python 2 holds as a text."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r:.40}")
    return text.encode("latin1")


class _ArrayType:
    """Stands for numpy's type of arrays, which a pickle names and must not call."""


_HARMLESS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _ArrayType(),
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    # The functions that rebuild an array and a number have other names in numpy 1 and numpy 2.
    **{
        (f"numpy.{core}.multiarray", name): made
        for core in ("core", "_core")
        for name, made in (("_reconstruct", _rebuild), ("scalar", np.float64(0).__reduce__()[0]))
    },
}


_OF_DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, AttributeError, IndexError, LookupError),
    *(RuntimeError, MemoryError, OverflowError, AssertionError, zlib.error),
    *(zipfile.BadZipFile, pickle.UnpicklingError),
)
"""What Python and numpy raise for a file that is damaged, or was made to be refused."""


def read_object(file: Path, key: str) -> Any:
    """Return the object that an array of one Python object holds.

    Args:
        file: the .npz file.
        key: name of the array in the file.

    Raises:
        BadInputError: the file cannot be read, has no such array, or its pickle asks for anything
            but data.
    """
    if file.exists() and not file.is_file():  # a pipe would be waited for
        raise BadInputError(f"{file}: is no file")
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f"{key}.npy") as member:
            _check_size(archive.getinfo(f"{key}.npy"), file)
            shape, _, kind = _read_header(member)
            if kind != np.dtype(object) or shape != ():
                raise BadInputError(f"{file}: {key} is {kind} of shape {shape}, must be one object")
            return _Unpickler(io.BytesIO(member.read()), encoding="latin1").load().item()
    except BadInputError:
        raise
    except FileNotFoundError:
        raise BadInputError(f"{file}: no such file") from None
    except KeyError:
        raise BadInputError(f"{file}: not in the expected form: array {key} is missing") from None
    except _OF_DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInputError(f"{file}: damaged, or not an .npz file: {reason:.200}") from None


def _check_size(member: zipfile.ZipInfo, file: Path) -> None:
    """Refuse a member of a file by its size, before it is unpacked."""
    is_swollen = member.file_size > max(_ALWAYS_BYTES, _MOST_RATIO * member.compress_size)
    if member.file_size > _MOST_BYTES or is_swollen:
        raise BadInputError(
            f"{file}: {member.filename} unpacks from {member.compress_size / 1e6:.3g} to "
            f"{member.file_size / 1e6:.3g} MB; no poses do"
        )


class _Unpickler(pickle.Unpickler):
    """Finds only the classes and functions that arrays of data are made of."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(
                f"its pickle asks for {module}.{name}, which could run code"
            )
        return _HARMLESS[module, name]
