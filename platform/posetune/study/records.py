"""Defines what workers and readers need of the study, as plain values.

A worker is one of many processes on its machine, and has no business with the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from posetune.spec.parameters import Scalar

__all__ = [
    "Attempt",
    "CheckpointRecord",
    "EpochValue",
    "ExpectedGain",
    "Remark",
    "Report",
    "SweepBest",
]


class Report(NamedTuple):
    """One report as readers keep it; a long sweep has a hundred thousand of them."""

    trial: int
    epoch: int
    value: float | None
    """The objective; None where it was not a number."""
    seconds: float = 0.0
    """Seconds that the epoch took."""
    decision: str = ""
    """What the rungs decided after the report."""


class Remark(NamedTuple):
    """What a person wrote about a sweep or a trial."""

    at: float
    """Seconds since the epoch."""
    by: str
    """Who, as person@host."""
    text: str


class EpochValue(NamedTuple):
    """An epoch of a trial and the objective at it."""

    epoch: int
    value: float


class SweepBest(NamedTuple):
    """The best value of a sweep up to one of its reports."""

    at: float
    """When it was reported; seconds since the epoch."""
    reports: int
    """How many reports of epochs there were by then, this one included."""
    trial: int
    epoch: int
    value: float


@dataclass(frozen=True, slots=True)
class ExpectedGain:
    """What the rest of a sweep is expected to gain over the best, beside the noise between seeds.

    All values are in the objective's unit.
    """

    mean: float
    low: float
    """With `high` the ends of an interval of 80 %."""
    high: float
    noise: float
    """Standard deviation of the values of trials that differ in their seed alone."""
    noise_from: str
    """What the noise is known from, in words."""

    @property
    def is_noise(self) -> bool:
        """Whether all of the interval is less than what a lucky seed gains."""
        return self.high < self.noise


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """A committed checkpoint."""

    attempt: int
    epoch: int
    folder: str
    """Name of the checkpoint's folder in storage."""
    digest: str
    bytes: int
    partial_s: float | None = None
    """Seconds trained since the last whole epoch, where it was saved within one."""

    @property
    def is_whole(self) -> bool:
        """Whether it was saved at the end of an epoch, and not within one."""
        return self.partial_s is None

    @property
    def progress(self) -> tuple[int, bool]:
        """What orders a trial's checkpoints: epochs finished, and whether there is more."""
        return self.epoch, self.partial_s is not None


@dataclass(frozen=True)
class Attempt:
    """Describes an attempt to run a trial, as its worker needs it."""

    trial: int
    number: int
    crashes: int
    """How often the trial's worker has died so far, in all lives of the driver."""
    seed: int
    params: Mapping[str, Scalar]
    checkpoints: tuple[CheckpointRecord, ...]
    """Committed checkpoints to continue from, newest first."""
    parent: int | None = None
    """The trial from whose checkpoint it goes on; it never begins anew then."""
