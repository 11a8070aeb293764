"""The events that people cause: acts on a sweep that a driver has taken up.

Each is a frozen class as those of `events`, which holds them all. `by` says who, as person@host of
the machine where the command was given. What follows from an act was decided when it was taken up,
and is a field here: the epoch after which a trial stops, the trials outside of new bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from posetune.spec.parameters import Scalar

__all__ = [
    "ActEvent",
    "NoteAdded",
    "StopAsked",
    "SweepEdited",
    "SweepHeld",
    "SweepReleased",
    "TagSet",
    "TrialEnqueued",
    "TrialExtended",
    "TrialPinned",
    "TrialRetried",
]


@dataclass(frozen=True, slots=True)
class NoteAdded:
    """Somebody wrote a note about the sweep, or about a trial."""

    at: float
    by: str
    text: str
    trial: int | None = None
    """None where the note is about the sweep."""


@dataclass(frozen=True, slots=True)
class TagSet:
    """Somebody gave the sweep, or a trial, a tag, or took one away."""

    at: float
    by: str
    name: str
    value: str | None
    """None where the tag is taken away."""
    trial: int | None = None
    """None where the tag is the sweep's."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody wants a trial to end."""

    at: float
    trial: int
    by: str
    after: int
    """The epoch after which it ends: the one under way, or the last one where none is."""


@dataclass(frozen=True, slots=True)
class TrialEnqueued:
    """Somebody chose the parameters of the next trial."""

    at: float
    by: str
    params: dict[str, Scalar]
    parent: int | None = None
    """The trial from whose checkpoint it goes on; None where it begins anew."""
    epochs: int | None = None
    """Its last epoch, where it has a parent."""
    parent_epoch: int = 0
    """The epoch of its parent's newest checkpoint, which it goes on from; 0 where it has none."""


@dataclass(frozen=True, slots=True)
class TrialPinned:
    """Somebody wants an open trial to run to its last epoch, whatever the pruner says."""

    at: float
    trial: int
    by: str


@dataclass(frozen=True, slots=True)
class TrialRetried:
    """Somebody takes up a trial again that failed or was stopped."""

    at: float
    trial: int
    by: str


@dataclass(frozen=True, slots=True)
class TrialExtended:
    """Somebody lets a trial that has ended train up to a later epoch."""

    at: float
    trial: int
    by: str
    epochs: int
    """Its last epoch from now on."""


@dataclass(frozen=True, slots=True)
class SweepHeld:
    """Somebody wants every trial to save and wait, and the slots to be free."""

    at: float
    by: str


@dataclass(frozen=True, slots=True)
class SweepReleased:
    """Somebody lets a sweep go on that was held."""

    at: float
    by: str


@dataclass(frozen=True, slots=True)
class SweepEdited:
    """Somebody gave the sweep another file: its budget, bounds or rungs hold from now on."""

    at: float
    by: str
    spec: dict[str, Any]
    """What the file says, as `SweepSpec.canonical`."""
    source: str
    """The file's text."""
    changed: list[str]
    """What differs from before, a line each."""
    outside: list[int]
    """The trials that lie outside the new bounds; the sampler does not learn from them."""


ActEvent: TypeAlias = (
    NoteAdded
    | TagSet
    | StopAsked
    | TrialEnqueued
    | TrialPinned
    | TrialRetried
    | TrialExtended
    | SweepHeld
    | SweepReleased
    | SweepEdited
)
