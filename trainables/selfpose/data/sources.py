"""Defines the `Source` that every importer gives to `importing.run_import` to make a store.

An importer reads its annotations, decides which rows go into which split, and says for any range
of a split's rows which `ImportJob` makes them. Jobs run in worker processes, so they are pickled:
a job holds what its rows need and nothing else. What a job makes depends on the job alone.

A job leaves out bad rows and names them (`Skip`). An importer does the same with a recording whose
annotations cannot be read (`BadAnnotationError`). A `BadInputError` says that a file or a folder is
bad as a whole, and ends the import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from selfpose.data.pictures.encodings import Encoding
from selfpose.data.shards import Columns
from selfpose.method.skeleton import Layout

__all__ = ["BadAnnotationError", "ImportJob", "ImportOptions", "Made", "Skip", "Source"]


class ImportOptions(BaseModel):
    """Holds the options of an import that every format has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(
        128, ge=32, le=256, multiple_of=8, description="Side of the store's images in pixels."
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="Highest number of frames in each split, spread evenly over the motions. "
        "Default: all frames.",
    )
    seed: int = Field(
        0,
        ge=0,
        description="Seed of all that an import draws at random: pictures, crops and jitter.",
    )
    encoding: Encoding = Field(
        "raw",
        description="How pictures are stored: `raw` as bytes of pixels, `jpeg` as JPEG files, "
        "which take about a tenth of the space.",
    )
    bone_ratios: str | None = Field(
        None,
        description="Length of each limb over the mean limb's, with commas between, in the order "
        "of the layout's limbs; or `usual` for the layout's own. `loss_weights.bone` asks for "
        "them. Default: measured on the 2D poses of the prior, which need no 3D truth for it.",
    )
    strict: bool = Field(
        False, description="Whether a bad item ends the import instead of being left out."
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="Number of processes that make rows. Default: one per processor core.",
    )


class BadAnnotationError(ValueError):
    """Says why one recording's annotations cannot be used, in the words of `skipped.csv`."""


class Skip(NamedTuple):
    """Names an item that an import leaves out, and says why."""

    split: str
    """Name of the split that the item would be in."""
    item: str
    """Name by which the owner of the data finds the item, most often its file."""
    reason: str
    """Why the item is left out. Equal faults have equal words, because reasons are counted."""


@dataclass(frozen=True)
class Made:
    """Holds the good rows of a job.

    All jobs of a split give the same columns, with rows or without.
    """

    columns: Columns
    """Columns by name: `image` (n, S * S * 3) uint8 RGB, `mask` (n, S * S) uint8, `joints_2d`
    (n, J * 2) float32 in crop coordinates, `joints_3d` (n, J * 3) float32 in mm in camera axes,
    `activity`, `subject`, `motion`, `camera` and `frame` (n,) int32. The split `prior` has only
    `joints_2d` and `motion`."""
    skipped: tuple[Skip, ...] = ()
    """The bad items of the job, which have no rows."""


class ImportJob(Protocol):
    """Makes some rows of one split, in any process to which it is pickled."""

    def __call__(self) -> Made:
        """Make the rows, in order."""


@dataclass(frozen=True)
class Source:
    """Describes everything that a store will hold, before any picture is made."""

    format: str
    """Name of the importer."""
    layout: Layout
    """Layout of the joints."""
    licence: str
    """Licence of the data, in words."""
    digest: str
    """SHA-256 of the files that were read; empty if no file was read."""
    activities: tuple[str, ...]
    """Names of the activities, in the order of their numbers from 0."""
    subjects: tuple[str, ...]
    """Names of the subjects, in the order of their numbers from 0."""
    motions: tuple[str, ...]
    """Names of the motions, in the order of their numbers from 0."""
    rows: Mapping[str, int]
    """Number of rows of each split, before jobs leave out bad ones."""
    job: Callable[[str, int, int], ImportJob]
    """Function that gives the job for a range of rows: `job(split, start, end)`."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Facts that `posetune data info` prints about the data, by name: level, views, scale, and what
    the checks of `plausibility` measured."""
    skipped: tuple[Skip, ...] = ()
    """Bad items that were found while the annotations were read; they have no rows."""
    excluded: tuple[Skip, ...] = ()
    """Items that are left out on purpose, from every copy of this data. A strict import accepts
    them."""
