"""The store: images and poses of four splits in memory-mapped Arrow files.

On disk a store is a folder:
    metadata.json           what is in it (`Metadata`) and the digest of everything
    skipped.csv             what the import left out, and why
    train/00000.arrow       Arrow IPC, uncompressed, one record batch of up to 4,096 rows
    prior/... val/... test/...
`open_store` reads metadata only; pictures are taken from the mapped files, so all processes of
a node share one page cache. The split `prior` holds 2D poses and their motions, nothing else.
Other splits hold what the data has: a column that is not there is refused when it is asked for.

Frames and units: 2D joints in crop coordinates [-1, 1], 3D joints in camera axes (x right,
y down, z away from the camera) in mm. Shape letters: N rows, J joints, S image side in pixels.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from posetune.api import BadInputError
from selfpose.data.encodings import Encoding, decode_image, decode_mask
from selfpose.data.shards import Blobs, Column, Columns, Shard, map_shard
from selfpose.method.skeleton import LAYOUTS, Layout

__all__ = [
    "SHARD_ROWS",
    "SKIPPED_FILE",
    "SPLITS",
    "VERSION",
    "Metadata",
    "Split",
    "Store",
    "open_store",
    "store_digest",
    "write_metadata",
    "write_whole",
]

VERSION = 2
"""Changes with the form of the files: a store of another version is refused."""

SHARD_ROWS = 4096
SPLITS = ("train", "prior", "val", "test")
METADATA_FILE = "metadata.json"
SKIPPED_FILE = "skipped.csv"


class Metadata(BaseModel):
    """What is in a store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[2] = 2
    format: str
    """Name of the importer that made it."""
    layout: str
    joints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    image_size: int
    activities: tuple[str, ...]
    subjects: tuple[str, ...]
    motions: tuple[str, ...]
    units: str = "joints_2d: crop [-1, 1]; joints_3d: mm, camera axes (x right, y down, z away)"
    licence: str
    seed: int
    encoding: Encoding = "raw"
    facts: Mapping[str, str] = {}
    """What else there is to say of this data: level, views, scale, ..."""
    skipped: Mapping[str, int] = {}
    """How many items the import left out, by reason; each is named in `skipped.csv`."""
    skipped_sha256: str = ""
    made_from: Mapping[str, str | int | None]
    """The options of the import and the digest of what was read."""
    shards: Mapping[str, tuple[Shard, ...]]
    """The files of each split, in order of their rows."""


class Split:
    """One split of an open store. Row i is the same row in every column.

    Pictures stay in the mapped files until asked for; the other columns, a fiftieth of the
    data, are copied into memory when first used.
    """

    def __init__(self, root: Path, name: str, *, shards: tuple[Shard, ...], image_size: int):
        self.name = name
        self._root = root
        self._shards = shards
        self._size = image_size

    def __len__(self) -> int:
        return sum(shard.rows for shard in self._shards)

    @functools.cached_property
    def joints_2d(self) -> NDArray[np.float32]:
        """Joints, (N, J, 2), crop coordinates."""
        return self._column("joints_2d").reshape(len(self), -1, 2)

    @functools.cached_property
    def joints_3d(self) -> NDArray[np.float32]:
        """Joints, (N, J, 3), mm, camera axes, not root-centred."""
        return self._column("joints_3d").reshape(len(self), -1, 3)

    @functools.cached_property
    def activity(self) -> NDArray[np.int32]:
        """Index into the metadata's activities, (N,)."""
        return self._column("activity")

    @functools.cached_property
    def subject(self) -> NDArray[np.int32]:
        """Index into the metadata's subjects, (N,)."""
        return self._column("subject")

    @functools.cached_property
    def motion(self) -> NDArray[np.int32]:
        """Index into the metadata's motions, (N,)."""
        return self._column("motion")

    @functools.cached_property
    def camera(self) -> NDArray[np.int32]:
        """Index of the camera, (N,)."""
        return self._column("camera")

    @functools.cached_property
    def frame(self) -> NDArray[np.int32]:
        """Index of the frame in its motion, (N,)."""
        return self._column("frame")

    @property
    def has_images(self) -> bool:
        """Whether there are pictures; a store of poses alone has none."""
        return self._holds("image")

    @property
    def has_3d(self) -> bool:
        """Whether there are true 3D poses."""
        return self._holds("joints_3d")

    def images(self, indices: ArrayLike) -> NDArray[np.uint8]:
        """Return RGB images (n, S, S, 3) of the rows with these indices (n,)."""
        return self._pictures("image", indices, shape=(self._size, self._size, 3))

    def masks(self, indices: ArrayLike) -> NDArray[np.uint8] | None:
        """Return how much of each pixel the person covers, (n, S, S), 0..255; None if unknown."""
        if not self._holds("mask"):
            return None
        return self._pictures("mask", indices, shape=(self._size, self._size))

    @functools.cached_property
    def _mapped(self) -> list[Columns]:
        return [map_shard(self._root / shard.file, shard) for shard in self._shards]

    def _holds(self, name: str) -> bool:
        return bool(self._mapped) and name in self._mapped[0]

    def _parts(self, name: str) -> list[Column]:
        if not self._holds(name):
            raise BadInputError(f"{self._root}: split {self.name} holds no {name}")
        return [columns[name] for columns in self._mapped]

    def _column(self, name: str) -> NDArray[Any]:
        parts = [part for part in self._parts(name) if not isinstance(part, Blobs)]
        return np.concatenate(parts)

    def _pictures(
        self, name: str, indices: ArrayLike, *, shape: tuple[int, ...]
    ) -> NDArray[np.uint8]:
        parts = self._parts(name)
        pictures = np.empty((len(places := self._places(indices)), *shape), dtype=np.uint8)
        for i, (shard, row) in enumerate(places):  # one copy; indexing by arrays takes two
            part = parts[shard]
            pictures[i] = (
                self._decode(_DECODERS[name], part[row], shard)
                if isinstance(part, Blobs)
                else part[row].reshape(shape)
            )
        return pictures

    def _places(self, indices: ArrayLike) -> Sequence[tuple[int, int]]:
        """Return (shard, row in it) of each of these rows."""
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"rows of split {self.name} are 0 to {len(self) - 1}")
        starts = np.cumsum([0, *(shard.rows for shard in self._shards)])
        shard_of = np.searchsorted(starts, wanted, side="right") - 1
        rows = (wanted - starts[shard_of]).tolist()
        return list(zip(shard_of.tolist(), rows, strict=True))

    def _decode(
        self, decode: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], file: Any, shard: int
    ) -> NDArray[np.uint8]:
        try:
            return decode(file)
        except ValueError as error:
            path = self._root / self._shards[shard].file
            raise BadInputError(f"{path}: damaged ({error}); import the data again") from None


_DECODERS = {"image": decode_image, "mask": decode_mask}


class Store:
    """An open store."""

    def __init__(self, root: Path, metadata: Metadata, *, digest: str, layout: Layout):
        self.root = root
        self.metadata = metadata
        self.digest = digest
        self.layout = layout
        self._splits = {
            name: Split(root, name, shards=shards, image_size=metadata.image_size)
            for name, shards in metadata.shards.items()
        }

    def split(self, name: str) -> Split:
        """Return the split `train`, `prior`, `val` or `test`."""
        if name not in self._splits:
            raise BadInputError(
                f"{self.root}: there is no split {name!r}; there are {', '.join(self._splits)}"
            )
        return self._splits[name]


def open_store(path: Path) -> Store:
    """Open a store; reads its metadata, not its data.

    Raises:
        BadInputError: the folder is no store, is not whole, or was changed by hand.
    """
    file = path / METADATA_FILE
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        digest = record.pop("digest")
        _check_version(record.get("version"), path)
        metadata = Metadata.model_validate(record)
    except FileNotFoundError:
        raise BadInputError(_why_no_store(path)) from None
    except BadInputError:
        raise
    except (OSError, ValueError, KeyError, AttributeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise BadInputError(f"{file}: not the metadata of a store: {reason}") from None
    if digest != store_digest(metadata):
        raise BadInputError(f"{file}: changed since the import; import the data again")
    if metadata.layout not in LAYOUTS:
        raise BadInputError(
            f"{file}: unknown joint layout {metadata.layout!r}; known are {', '.join(LAYOUTS)}"
        )
    for shard in (shard for shards in metadata.shards.values() for shard in shards):
        _check_size(path / shard.file, shard)
    return Store(path, metadata, digest=digest, layout=LAYOUTS[metadata.layout])


def store_digest(metadata: Metadata) -> str:
    """Return the SHA-256 over the metadata, which holds the digest of every file."""
    text = json.dumps(metadata.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_metadata(folder: Path, metadata: Metadata) -> None:
    """Write a store's metadata and digest, whole or not at all."""
    record = {"digest": store_digest(metadata), **metadata.model_dump(mode="json")}
    write_whole(folder / METADATA_FILE, json.dumps(record, indent=1))


def write_whole(file: Path, text: str) -> None:
    """Write a text file through a temporary name, so that it is never seen half written."""
    draft = file.with_name(file.name + ".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)


def _check_version(version: object, path: Path) -> None:
    if version != VERSION:
        raise BadInputError(
            f"{path}: a store of version {version}, and this posetune reads version {VERSION}; "
            "import the data again"
        )


def _check_size(path: Path, shard: Shard) -> None:
    size = path.stat().st_size if path.is_file() else None
    if size != shard.size:
        found = "is missing" if size is None else f"has {size} bytes instead of {shard.size}"
        raise BadInputError(f"{path}: {found}; import the data again")


def _why_no_store(path: Path) -> str:
    if path.with_name(path.name + ".partial").is_dir():
        return f"{path}: the import is not finished; give the same import command again"
    if not path.exists():
        return f"{path}: no such store; make one with `posetune data import`"
    return f"{path}: not a store (no {METADATA_FILE})"
