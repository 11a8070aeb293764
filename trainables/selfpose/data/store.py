"""Opens a store: images and poses of four splits in memory-mapped Arrow files.

On disk a store is a folder:
    metadata.json           what is in it (`data.metadata`) and the digest of everything
    skipped.csv             what the import left out, and why
    train/00000.arrow       Arrow IPC, uncompressed, one record batch of up to 4,096 rows
    prior/... val/... test/...
`open_store` reads metadata only, and trusts neither them nor the files: both are held against the
joint layout and each other before anything is mapped. Pictures are taken from the mapped files, so
all processes of a node share one page cache. The split `prior` holds 2D poses and their motions,
nothing else. Other splits hold what the data has: a column that is not there is refused when it is
asked for.

Frames and units: 2D joints in crop coordinates [-1, 1], 3D joints in camera axes (x right,
y down, z away from the camera) in mm. Shape letters: N rows, J joints, S image side in pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posetune.api import BadInputError
from selfpose.data.metadata import Metadata, read_metadata
from selfpose.data.pictures.encodings import decode_image, decode_mask
from selfpose.data.shards import Blobs, Column, Columns, Shard, map_shard
from selfpose.method.skeleton import Layout

__all__ = ["Split", "Store", "open_store"]

_Decoder = Callable[[NDArray[np.uint8], tuple[int, ...]], NDArray[np.uint8]]
"""Decodes a picture file's bytes to a picture of a shape, which is looked at before."""


class Split:
    """Gives the columns and pictures of one split; row i is the same row in every column.

    Pictures stay in the mapped files until somebody asks for them; the other columns, a fiftieth of
    the data, are copied into memory when they are first used. Every accessor raises
    `BadInputError` if the split does not have the column or its files are damaged.
    """

    def __init__(self, root: Path, name: str, metadata: Metadata):
        """Prepare to read a split.

        Args:
            root: the store's folder.
            name: name of the split.
            metadata: what the store says of itself.
        """
        self.name = name
        self._root = root
        self._shards = metadata.shards[name]
        self._size = metadata.image_size
        self._forms = metadata.forms(name)
        self._limits = metadata.limits

    def __len__(self) -> int:
        return sum(shard.rows for shard in self._shards)

    @functools.cached_property
    def joints_2d(self) -> NDArray[np.float32]:
        """Positions of the joints, (N, J, 2), in crop coordinates [-1, 1]: x right, y down."""
        return self._column("joints_2d").reshape(len(self), -1, 2)

    @functools.cached_property
    def joints_3d(self) -> NDArray[np.float32]:
        """Positions of the joints, (N, J, 3), in mm in camera axes, not root-centred."""
        return self._column("joints_3d").reshape(len(self), -1, 3)

    @functools.cached_property
    def activity(self) -> NDArray[np.int32]:
        """Index of each row's activity in the metadata, (N,)."""
        return self._column("activity")

    @functools.cached_property
    def subject(self) -> NDArray[np.int32]:
        """Index of each row's subject in the metadata, (N,)."""
        return self._column("subject")

    @functools.cached_property
    def motion(self) -> NDArray[np.int32]:
        """Index of each row's motion in the metadata, (N,)."""
        return self._column("motion")

    @functools.cached_property
    def camera(self) -> NDArray[np.int32]:
        """Index of each row's camera, (N,)."""
        return self._column("camera")

    @functools.cached_property
    def frame(self) -> NDArray[np.int32]:
        """Number of each row's frame in its motion, (N,)."""
        return self._column("frame")

    @property
    def has_images(self) -> bool:
        """Whether the split has pictures; a store of poses alone has none."""
        return self._holds("image")

    @property
    def has_3d(self) -> bool:
        """Whether the split has true 3D poses."""
        return self._holds("joints_3d")

    def images(self, indices: ArrayLike) -> NDArray[np.uint8]:
        """Return the RGB images of some rows.

        Args:
            indices: indices of the rows, (n,).

        Returns:
            Images, (n, S, S, 3), brightness 0 to 255.
        """
        return self._pictures("image", indices, shape=(self._size, self._size, 3))

    def masks(self, indices: ArrayLike) -> NDArray[np.uint8] | None:
        """Return the foreground masks of some rows; None if the store has no masks.

        Args:
            indices: indices of the rows, (n,).

        Returns:
            How much of each pixel the person covers, (n, S, S), from 0 (nothing) to 255 (all).
        """
        if not self._holds("mask"):
            return None
        return self._pictures("mask", indices, shape=(self._size, self._size))

    @functools.cached_property
    def _mapped(self) -> list[Columns]:
        return [map_shard(_inside(self._root, shard), shard, self._forms) for shard in self._shards]

    def _holds(self, name: str) -> bool:
        return bool(self._mapped) and name in self._mapped[0]

    def _parts(self, name: str) -> list[Column]:
        if not self._holds(name):
            raise BadInputError(f"{self._root}: split {self.name} holds no {name}")
        for shard, columns in zip(self._shards, self._mapped, strict=True):
            if name not in columns:
                raise BadInputError(
                    f"{self._root / shard.file}: damaged (it lacks the column {name}); import the "
                    "data again"
                )
        return [columns[name] for columns in self._mapped]

    def _column(self, name: str) -> NDArray[Any]:
        parts = [part for part in self._parts(name) if not isinstance(part, Blobs)]
        values = np.concatenate(parts)
        if values.dtype.kind == "f":
            good, wanted = bool(np.isfinite(values).all()), "finite numbers"
        else:
            most = self._limits.get(name, np.iinfo(np.int32).max)
            good, wanted = bool(((values >= 0) & (values < most)).all()), f"within 0..{most - 1}"
        if not good:
            raise BadInputError(
                f"{self._root}: damaged (column {name} of split {self.name} must be {wanted}); "
                "import the data again"
            )
        return values

    def _pictures(
        self, name: str, indices: ArrayLike, *, shape: tuple[int, ...]
    ) -> NDArray[np.uint8]:
        parts = self._parts(name)
        places = self._places(indices)
        pictures = np.empty((len(places), *shape), dtype=np.uint8)
        for i, (shard, row) in enumerate(places):  # one copy; indexing by arrays would take two
            part = parts[shard]
            pictures[i] = (
                self._decode(_DECODERS[name], part[row], shard, shape=shape)
                if isinstance(part, Blobs)
                else part[row].reshape(shape)
            )
        return pictures

    def _places(self, indices: ArrayLike) -> Sequence[tuple[int, int]]:
        """Return the index of the file and the row in that file, for each of these rows."""
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"rows of split {self.name} are 0 to {len(self) - 1}")
        starts = np.cumsum([0, *(shard.rows for shard in self._shards)])
        shard_of = np.searchsorted(starts, wanted, side="right") - 1
        rows = (wanted - starts[shard_of]).tolist()
        return list(zip(shard_of.tolist(), rows, strict=True))

    def _decode(
        self, decode: _Decoder, file: Any, shard: int, *, shape: tuple[int, ...]
    ) -> NDArray[np.uint8]:
        try:
            return decode(file, shape)
        except ValueError as error:
            path = self._root / self._shards[shard].file
            raise BadInputError(f"{path}: damaged ({error}); import the data again") from None


_DECODERS: Mapping[str, _Decoder] = {"image": decode_image, "mask": decode_mask}


class Store:
    """Gives the metadata and the splits of an open store."""

    def __init__(self, root: Path, metadata: Metadata, *, digest: str, layout: Layout):
        """Hold a store's metadata; `open_store` reads and checks them.

        Args:
            root: the store's folder.
            metadata: what is in the store.
            digest: digest of the store's content.
            layout: the joint layout that the metadata names.
        """
        self.root = root
        self.metadata = metadata
        self.digest = digest
        self.layout = layout
        self.bone_ratios = metadata.bone_ratios or layout.bone_ratios
        """Usual length of each limb over the mean limb's, in the order of the layout's limbs."""
        self._splits = {name: Split(root, name, metadata) for name in metadata.shards}

    def split(self, name: str) -> Split:
        """Return the split `train`, `prior`, `val` or `test`.

        Raises:
            BadInputError: there is no such split.
        """
        if name not in self._splits:
            raise BadInputError(
                f"{self.root}: there is no split {name!r}; there are {', '.join(self._splits)}"
            )
        return self._splits[name]


def open_store(path: Path) -> Store:
    """Open a store: read its metadata and check the size of its files, but read no data.

    Raises:
        BadInputError: the folder is no store, is not finished, or was changed by hand.
    """
    metadata, digest, layout = read_metadata(path)
    for shard in (shard for shards in metadata.shards.values() for shard in shards):
        _check_size(_inside(path, shard), shard)
    return Store(path, metadata, digest=digest, layout=layout)


def _inside(root: Path, shard: Shard) -> Path:
    """Return where a file of the store is; refuse one that a link leads to.

    Raises:
        BadInputError: the file or its folder is a symbolic link.
    """
    path = root / shard.file
    if path.is_symlink() or path.parent.is_symlink():
        raise BadInputError(
            f"{path}: is a symbolic link; a store holds its own files. Copy the data, or import "
            "them again"
        )
    return path


def _check_size(path: Path, shard: Shard) -> None:
    size = path.stat().st_size if path.is_file() else None
    if size != shard.size:
        found = "is missing" if size is None else f"has {size} bytes instead of {shard.size}"
        raise BadInputError(f"{path}: {found}; import the data again")
