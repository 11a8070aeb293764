"""Reads arrays of Python objects from .npz files without running code that a pickle may name.

Such an array is a pickle, and a pickle can call any function. This reader builds arrays, numbers,
texts and containers, and refuses everything else.
"""

from __future__ import annotations

import codecs
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from posetune.api import BadInputError

__all__ = ["read_object"]

_HARMLESS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
    # The functions that rebuild an array and a number have other names in numpy 1 and numpy 2.
    **{
        (f"numpy.{core}.multiarray", name): made.__reduce__()[0]
        for core in ("core", "_core")
        for name, made in (("_reconstruct", np.empty(0)), ("scalar", np.float64(0)))
    },
}


def read_object(file: Path, key: str) -> Any:
    """Return the object that an array of one Python object holds.

    Args:
        file: the .npz file.
        key: name of the array in the file.

    Raises:
        BadInputError: the file cannot be read, has no such array, or its pickle asks for anything
            but data.
    """
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f"{key}.npy") as member:
            version = np.lib.format.read_magic(member)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            shape, _, kind = read(member)
            if kind != np.dtype(object) or shape != ():
                raise BadInputError(f"{file}: {key} is {kind} of shape {shape}, must be one object")
            return _Unpickler(io.BytesIO(member.read()), encoding="latin1").load().item()
    except BadInputError:
        raise
    except FileNotFoundError:
        raise BadInputError(f"{file}: no such file") from None
    except KeyError:
        raise BadInputError(f"{file}: not in the expected form: array {key} is missing") from None
    except (OSError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise BadInputError(f"{file}: damaged: {error}") from None
    except (zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise BadInputError(f"{file}: damaged, or not an .npz file: {error}") from None


class _Unpickler(pickle.Unpickler):
    """Finds only the classes and functions that arrays of data are made of."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(
                f"its pickle asks for {module}.{name}, which could run code"
            )
        return _HARMLESS[module, name]
