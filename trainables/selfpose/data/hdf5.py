"""Opens HDF5 files and reads their datasets, after a look at where they lie and how large they are.

An HDF5 file can name parts of other files (external links, external storage, virtual datasets) and
can claim sizes that nothing on disk stands for: rows that were never written take no space there.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_BYTES", "UnsafeDatasetError", "check_dataset", "find_dataset", "read_dataset"]

MOST_BYTES = 8 * 1024**3
"""Size of the largest dataset that is read, in bytes."""
_ALWAYS_BYTES = 64 * 1024**2
"""Size below which a dataset may be as well compressed, or as empty, as it likes."""
_MOST_RATIO = 1000
"""How often larger a dataset may be than what is on disk for it; zlib comes to about 1,000."""


class UnsafeDatasetError(ValueError):
    """A dataset lies in another file, or claims more than is there; the message says which."""


def find_dataset(h5: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset of a file by its path; nothing of it is read.

    Raises:
        KeyError: there is no such dataset.
        UnsafeDatasetError: it is not in this file, or cannot be read safely.
    """
    at: Any = h5
    for part in name.split("/"):
        link = at.get(part, getlink=True) if isinstance(at, h5py.Group) else None
        if link is None:
            raise KeyError(name)
        if not isinstance(link, h5py.HardLink):
            raise UnsafeDatasetError(f"{name} is a link to another place; only its own is read")
        at = at[part]
    if not isinstance(at, h5py.Dataset):
        raise KeyError(name)
    check_dataset(at)
    return at


def read_dataset(h5: h5py.File, name: str) -> NDArray[Any]:
    """Return all of a dataset.

    Raises:
        KeyError: there is no such dataset.
        UnsafeDatasetError: it is not in this file, or cannot be read safely.
    """
    return np.asarray(find_dataset(h5, name)[()])


def check_dataset(dataset: h5py.Dataset) -> None:
    """Refuse a dataset of another file, and one that is far larger than what is on disk.

    Raises:
        UnsafeDatasetError: it cannot be read safely.
    """
    name = dataset.name
    if dataset.external or dataset.is_virtual:
        raise UnsafeDatasetError(f"{name} is stored in another file; only its own is read")
    stored, claimed = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
    if claimed > MOST_BYTES:
        raise UnsafeDatasetError(
            f"{name} has shape {dataset.shape}: {claimed / 1e9:.3g} GB, more than "
            f"{MOST_BYTES / 1e9:.3g}"
        )
    if claimed > _ALWAYS_BYTES and claimed > _MOST_RATIO * stored:
        raise UnsafeDatasetError(
            f"{name} has shape {dataset.shape}, but only {stored} bytes of it are in the file"
        )
