"""What every importer hands over: a `Source`, from which `importing.run_import` makes a store.

An importer reads its annotations, decides which rows go into which split, and says for any range
of a split's rows which `ImportJob` makes them. Jobs run in worker processes, so they are pickled:
a job holds what its rows need and nothing else. What a job makes depends on the job alone.

A job leaves out the rows that are bad and names them (`Skip`); a `BadInputError` is for what is
bad as a whole and ends the import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from selfpose.data.encodings import Encoding
from selfpose.data.shards import Columns
from selfpose.method.skeleton import Layout

__all__ = ["ImportJob", "ImportOptions", "Made", "Skip", "Source"]


class ImportOptions(BaseModel):
    """How a store is made, whatever it is made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(
        128, ge=32, le=256, multiple_of=8, description="Side of the images, pixels."
    )
    limit: int | None = Field(
        None, ge=1, description="Frames per split, spread evenly over motions; default all."
    )
    seed: int = Field(0, ge=0, description="Whatever is drawn or jittered follows from it.")
    encoding: Encoding = Field("raw", description="Pictures as they are, or as JPEG files.")
    strict: bool = Field(False, description="Refuse bad items instead of leaving them out.")
    workers: int | None = Field(None, ge=1, description="Processes; default one per core.")


class Skip(NamedTuple):
    """An item that is left out."""

    split: str
    item: str
    """Names it, so that its owner finds it: most often its file."""
    reason: str
    """Why; the same words for the same fault, as reasons are counted."""


@dataclass(frozen=True)
class Made:
    """The good rows of a job.

    Columns by name: `image` (n, S * S * 3) uint8 RGB, `mask` (n, S * S) uint8, `joints_2d`
    (n, J * 2) and `joints_3d` (n, J * 3) float32, `activity`, `subject`, `motion`, `camera` and
    `frame` (n,) int32; of the split `prior` only `joints_2d` and `motion`. All jobs of a split
    give the same columns, with rows or without.
    """

    columns: Columns
    skipped: tuple[Skip, ...] = ()


class ImportJob(Protocol):
    """Makes some rows of one split; can be pickled."""

    def __call__(self) -> Made:
        """Make the rows, in order."""


@dataclass(frozen=True)
class Source:
    """All that a store will hold, before any picture is made."""

    format: str
    layout: Layout
    licence: str
    digest: str
    """SHA-256 of what was read; empty when nothing was."""
    activities: tuple[str, ...]
    subjects: tuple[str, ...]
    motions: tuple[str, ...]
    rows: Mapping[str, int]
    """How many rows each split has, before its jobs leave out bad ones."""
    job: Callable[[str, int, int], ImportJob]
    """`job(split, start, end)` makes these rows."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What `posetune data info` says of this data: level, views, scale, ..."""
    skipped: tuple[Skip, ...] = ()
    """Bad items that were found in reading; they are in no split's rows."""
    excluded: tuple[Skip, ...] = ()
    """What is left out of every copy of this data, on purpose: a strict import does not mind."""
