"""The store: images and poses of four splits in memory-mapped Arrow files.

On disk a store is a folder:
    metadata.json           what is in it (`Metadata`) and the digest of everything
    train/00000.arrow       Arrow IPC, uncompressed, one record batch of up to 4,096 rows
    prior/... val/... test/...
`open_store` reads metadata only; pictures are taken from the mapped files, so all processes of
a node share one page cache. The split `prior` holds 2D poses and their motions, nothing else.

Frames and units: 2D joints in crop coordinates [-1, 1], 3D joints in camera axes (x right,
y down, z away from the camera) in mm. Shape letters: N rows, J joints, S image side in pixels.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from posetune.api import BadInputError
from selfpose.skeleton import LAYOUTS, Layout

__all__ = [
    "SHARD_ROWS",
    "SPLITS",
    "Metadata",
    "Shard",
    "Split",
    "Store",
    "open_store",
    "row_bytes",
    "store_digest",
    "write_metadata",
    "write_shard",
]

SHARD_ROWS = 4096
SPLITS = ("train", "prior", "val", "test")
METADATA_FILE = "metadata.json"

Columns = Mapping[str, NDArray[Any]]


class Shard(BaseModel):
    """One file of a split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    """Path inside the store, with forward slashes."""
    rows: int
    size: int
    """Bytes of the file."""
    sha256: str


class Metadata(BaseModel):
    """What is in a store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
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
    level: str
    seed: int
    views: int
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

    def images(self, indices: ArrayLike) -> NDArray[np.uint8]:
        """Return RGB images (n, S, S, 3) of the rows with these indices (n,)."""
        rows = self._rows("image", indices)
        return rows.reshape(-1, self._size, self._size, 3)

    def masks(self, indices: ArrayLike) -> NDArray[np.uint8] | None:
        """Return how much of each pixel the person covers, (n, S, S), 0..255; None if unknown."""
        if not self._mapped or "mask" not in self._mapped[0]:
            return None
        return self._rows("mask", indices).reshape(-1, self._size, self._size)

    @functools.cached_property
    def _mapped(self) -> list[Columns]:
        return [_map_shard(self._root / shard.file, shard) for shard in self._shards]

    def _parts(self, name: str) -> list[NDArray[Any]]:
        if not self._mapped or name not in self._mapped[0]:
            raise BadInputError(f"{self._root}: split {self.name} holds no {name}")
        return [columns[name] for columns in self._mapped]

    def _column(self, name: str) -> NDArray[Any]:
        return np.concatenate(self._parts(name))

    def _rows(self, name: str, indices: ArrayLike) -> NDArray[np.uint8]:
        parts = self._parts(name)
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"rows of split {self.name} are 0 to {len(self) - 1}")
        starts = np.cumsum([0, *(shard.rows for shard in self._shards)])
        shard_of = np.searchsorted(starts, wanted, side="right") - 1
        places = zip(shard_of.tolist(), (wanted - starts[shard_of]).tolist(), strict=True)
        rows = np.empty((len(wanted), parts[0].shape[1]), dtype=np.uint8)
        for i, (shard, row) in enumerate(places):  # one copy; indexing by arrays takes two
            rows[i] = parts[shard][row]
        return rows


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
        metadata = Metadata.model_validate(record)
    except FileNotFoundError:
        raise BadInputError(_why_no_store(path)) from None
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


def write_shard(root: Path, file: str, columns: Columns) -> Shard:
    """Write one file of a split, moved into place when it is whole.

    Args:
        root: the store's folder.
        file: path inside the store.
        columns: by name; uint8 (N, bytes), float32 (N, numbers) or int32 (N,).
    """
    arrays = {name: _to_arrow(column) for name, column in columns.items()}
    batch = pa.record_batch(list(arrays.values()), names=list(arrays))
    target = root / file
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(target.name + ".draft")
    with draft.open("wb") as raw:
        hashing = _HashingFile(raw)
        with pa.PythonFile(hashing, mode="w") as sink, pa.ipc.new_file(sink, batch.schema) as out:
            out.write_batch(batch)
        raw.flush()
        os.fsync(raw.fileno())
    draft.replace(target)
    return Shard(file=file, rows=len(batch), size=hashing.size, sha256=hashing.sha256.hexdigest())


def row_bytes(image_size: int, joints: int, *, images: bool) -> int:
    """Return how many bytes one row takes on disk."""
    poses = joints * 2 * 4 + 4
    return poses + (image_size**2 * 4 + joints * 3 * 4 + 4 * 4 if images else 0)


class _HashingFile:
    """A file for Arrow to write to, which takes the digest of what passes through."""

    closed = False

    def __init__(self, raw: Any):
        self._raw = raw
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._raw.write(view)
        self.sha256.update(view)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._raw.flush()

    def close(self) -> None:
        """Leave the file open: its owner flushes it to disk."""


def _to_arrow(column: NDArray[Any]) -> pa.Array:
    column = np.ascontiguousarray(column)
    if column.dtype == np.uint8:
        kind = pa.binary(column.shape[1])
        return pa.FixedSizeBinaryArray.from_buffers(
            kind, len(column), [None, pa.py_buffer(column.reshape(-1))]
        )
    flat = pa.array(column.reshape(-1))
    return flat if column.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, column.shape[1])


def _map_shard(path: Path, shard: Shard) -> Columns:
    """Return the columns of a file as views of its mapped memory."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batch = reader.get_batch(0)
        if len(batch) != shard.rows:
            raise ValueError(f"{len(batch)} rows instead of {shard.rows}")
        return {name: _from_arrow(batch.column(name)) for name in batch.schema.names}
    except (OSError, ValueError, IndexError) as error:  # Arrow's errors derive from these
        raise BadInputError(f"{path}: damaged ({error}); import the data again") from None


def _from_arrow(array: pa.Array) -> NDArray[Any]:
    """Return the numpy view of one column: (N, bytes), (N, numbers) or (N,)."""
    data = array.buffers()[-1]
    if pa.types.is_fixed_size_binary(array.type):
        return np.frombuffer(data, dtype=np.uint8).reshape(len(array), array.type.byte_width)
    if pa.types.is_fixed_size_list(array.type):
        return np.frombuffer(data, dtype=np.float32).reshape(len(array), array.type.list_size)
    return np.frombuffer(data, dtype=np.int32)


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
