"""What a store says of itself: `metadata.json`, with the digest of everything.

`read_metadata` trusts nothing: the file is held against `Metadata`, its own digest and the joint
layout that it names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from posetune.api import BadInputError
from selfpose.data.pictures.encodings import Encoding
from selfpose.data.shards import Form, Shard
from selfpose.method.skeleton import LAYOUTS, Layout
from selfpose.whole_files import write_whole

__all__ = [
    "SKIPPED_FILE",
    "SPLITS",
    "VERSION",
    "Metadata",
    "StoreRecord",
    "read_metadata",
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
    bone_ratios: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        (), exclude_if=lambda ratios: not ratios
    )
    """Length of each limb over the mean limb's, no unit; empty where nobody gave it and
    there were too few poses to measure it."""
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
    def _every_limb_has_a_ratio(self) -> Metadata:
        if self.bone_ratios and len(self.bone_ratios) != len(self.limbs):
            raise ValueError(f"{len(self.bone_ratios)} bone ratios of {len(self.limbs)} limbs")
        return self

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


class StoreRecord(NamedTuple):
    """What was read of a store."""

    metadata: Metadata
    digest: str
    """Digest of the store's content."""
    layout: Layout
    """The joint layout that the metadata name."""


def read_metadata(folder: Path) -> StoreRecord:
    """Read what a store says of itself.

    Raises:
        BadInputError: the folder is no store, is not finished, or was changed by hand.
    """
    file = folder / METADATA_FILE
    try:
        text = _read_file(file)
        version = _Version.model_validate_json(text).version
        if version != VERSION:
            raise BadInputError(
                f"{folder}: a store of version {version!r:.40}, and this posetune reads version "
                f"{VERSION}; import the data again"
            )
        record = _Record.model_validate_json(text)
    except FileNotFoundError:
        raise BadInputError(_why_no_store(folder)) from None
    except BadInputError:
        raise
    except (OSError, ValueError) as error:
        raise BadInputError(f"{file}: not the metadata of a store: {_reason(error)}") from None
    metadata = Metadata.model_validate(record.model_dump(exclude={"digest"}))
    if record.digest != store_digest(metadata):
        raise BadInputError(f"{file}: changed since the import; import the data again")
    return StoreRecord(metadata, record.digest, _layout_of(metadata, file))


def store_digest(metadata: Metadata) -> str:
    """Return the SHA-256 over the metadata, which holds the digest of every file."""
    text = json.dumps(metadata.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_metadata(folder: Path, metadata: Metadata) -> None:
    """Write a store's metadata and its digest into the store's folder."""
    record = {"digest": store_digest(metadata), **metadata.model_dump(mode="json")}
    write_whole(folder / METADATA_FILE, json.dumps(record, indent=1))


class _Version(BaseModel):
    """The only field of the metadata that all versions have."""

    version: Any = None


class _Record(Metadata):
    """The metadata as they are written, with their digest."""

    digest: str


def _read_file(file: Path) -> bytes:
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


def _why_no_store(path: Path) -> str:
    if path.with_name(path.name + ".partial").is_dir():
        return f"{path}: the import is not finished; give the same import command again"
    if not path.exists():
        return f"{path}: no such store; make one with `posetune data import`"
    return f"{path}: not a store (no {METADATA_FILE})"
