"""Opens a store: images and poses of four splits in memory-mapped Arrow files.

On disk a store is a folder:
    metadata.json           what is in it (`Metadata`) and the digest of everything
    skipped.csv             what the import left out, and why
    train/00000.arrow       Arrow IPC, uncompressed, one record batch of up to 4,096 rows
    prior/... val/... test/...
`open_store` reads metadata only, and trusts neither them nor the files: both are held against
`Metadata`, the joint layout and each other before anything is mapped. Pictures are taken from the
mapped files, so all processes of a node share one page cache. The split `prior` holds 2D poses and
their motions, nothing else.
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
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from posetune.api import BadInputError
from selfpose.data.pictures.encodings import Encoding, decode_image, decode_mask
from selfpose.data.shards import SHARD_ROWS, Blobs, Column, Columns, Form, Shard, map_shard
from selfpose.method.skeleton import LAYOUTS, Layout
from selfpose.whole_files import write_whole

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
]

VERSION = 2
"""Version of the files' form. It changes with the form, and other versions are refused."""

SPLITS = ("train", "prior", "val", "test")
"""Names of the splits: images to train on, 2D poses of other motions, validation and test."""
METADATA_FILE = "metadata.json"
_METADATA_BYTES = 256 * 1024**2
"""Size of the largest file of metadata that is read."""
_Name = Annotated[str, Field(max_length=1000)]
_Text = Annotated[str, Field(max_length=100_000)]
SKIPPED_FILE = "skipped.csv"


class Metadata(BaseModel):
    """Describes what is in a store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[2] = 2
    """Version of the files' form."""
    format: _Name
    """Name of the importer that made the store."""
    layout: _Name
    """Name of the joint layout."""
    joints: tuple[_Name, ...]
    """Names of the joints, in the order of the columns."""
    limbs: tuple[tuple[int, int], ...]
    """Child and parent joint index of each limb."""
    image_size: int = Field(ge=1, le=4096)
    """Side of the images in pixels."""
    activities: tuple[_Name, ...]
    """Names of the activities, which the column `activity` numbers from 0."""
    subjects: tuple[_Name, ...]
    """Names of the subjects, which the column `subject` numbers from 0."""
    motions: tuple[_Name, ...]
    """Names of the motions, which the column `motion` numbers from 0."""
    units: str = "joints_2d: crop [-1, 1]; joints_3d: mm, camera axes (x right, y down, z away)"
    """Units and frames of the joints, in words."""
    licence: _Text
    """Licence of the data, in words."""
    seed: int
    """Seed of the import."""
    encoding: Encoding = "raw"
    """How pictures are stored, see `encodings`."""
    facts: Mapping[str, str] = {}
    """Further facts about the data, by name: level, views, scale and so on."""
    skipped: Mapping[str, int] = {}
    """Number of items that the import left out, by reason; `skipped.csv` names each item."""
    skipped_sha256: str = ""
    """SHA-256 of `skipped.csv`."""
    made_from: Mapping[str, str | int | None]
    """Options of the import and the digest of the files that it read."""
    shards: Mapping[str, tuple[Shard, ...]]
    """Files of each split, in the order of their rows."""

    @model_validator(mode="after")
    def _files_are_those_of_their_split(self) -> Metadata:
        for split, shards in self.shards.items():
            if split not in SPLITS:
                raise ValueError(f"unknown split {split!r}; there are {', '.join(SPLITS)}")
            for shard in shards:
                if shard.file.partition("/")[0] != split:
                    raise ValueError(f"{shard.file} is no file of split {split}")
        return self

    def forms(self, split: str) -> dict[str, Form]:
        """Return what each column of a split must be, by name."""
        joints, pixels = len(self.joints), self.image_size**2
        forms = {"joints_2d": Form("floats", 2 * joints), "motion": Form("integers")}
        if split == "prior":
            return forms
        is_raw = self.encoding == "raw"
        return {
            **forms,
            "joints_3d": Form("floats", 3 * joints),
            "image": Form("bytes", 3 * pixels) if is_raw else Form("files"),
            "mask": Form("bytes", pixels) if is_raw else Form("files"),
            **{name: Form("integers") for name in ("activity", "subject", "camera", "frame")},
        }

    @property
    def limits(self) -> dict[str, int]:
        """Number of names of each column that holds indices, by the column's name."""
        return {
            "activity": len(self.activities),
            "subject": len(self.subjects),
            "motion": len(self.motions),
        }


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
    file = path / METADATA_FILE
    try:
        text = _read_metadata(file)
        version = _Version.model_validate_json(text).version
        if version != VERSION:
            raise BadInputError(
                f"{path}: a store of version {version!r:.40}, and this posetune reads version "
                f"{VERSION}; import the data again"
            )
        record = _Record.model_validate_json(text)
    except FileNotFoundError:
        raise BadInputError(_why_no_store(path)) from None
    except BadInputError:
        raise
    except (OSError, ValueError) as error:
        raise BadInputError(f"{file}: not the metadata of a store: {_reason(error)}") from None
    metadata = Metadata.model_validate(record.model_dump(exclude={"digest"}))
    if record.digest != store_digest(metadata):
        raise BadInputError(f"{file}: changed since the import; import the data again")
    layout = _layout_of(metadata, file)
    for shard in (shard for shards in metadata.shards.values() for shard in shards):
        _check_size(_inside(path, shard), shard)
    return Store(path, metadata, digest=record.digest, layout=layout)


class _Version(BaseModel):
    """The only field of the metadata that all versions have."""

    version: Any = None


class _Record(Metadata):
    """The metadata as they are written, with their digest."""

    digest: str


def _read_metadata(file: Path) -> bytes:
    if file.exists() and not file.is_file():
        raise ValueError("it is no file")
    size = file.stat().st_size
    if size > _METADATA_BYTES:
        raise ValueError(f"{size} bytes, more than {_METADATA_BYTES}")
    return file.read_bytes()


def _reason(error: Exception) -> str:
    """Return what is wrong with the metadata, in one line."""
    if isinstance(error, ValidationError):
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        return f"{where}: {fault['msg']}" if where else str(fault["msg"])
    return str(error).splitlines()[0]


def _layout_of(metadata: Metadata, file: Path) -> Layout:
    """Return the joint layout that the metadata name; refuse another number or order of joints."""
    layout = LAYOUTS.get(metadata.layout)
    if layout is None:
        raise BadInputError(
            f"{file}: unknown joint layout {metadata.layout!r}; known are {', '.join(LAYOUTS)}"
        )
    if metadata.joints != layout.joints or metadata.limbs != layout.limbs:
        raise BadInputError(
            f"{file}: its joints and limbs are not those of the layout {layout.name}; import the "
            "data again"
        )
    return layout


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


def store_digest(metadata: Metadata) -> str:
    """Return the SHA-256 over the metadata, which holds the digest of every file."""
    text = json.dumps(metadata.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_metadata(folder: Path, metadata: Metadata) -> None:
    """Write a store's metadata and its digest into the store's folder."""
    record = {"digest": store_digest(metadata), **metadata.model_dump(mode="json")}
    write_whole(folder / METADATA_FILE, json.dumps(record, indent=1))


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
