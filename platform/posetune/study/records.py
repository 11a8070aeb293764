"""What the study knows of a trial, as plain values: all of the study that a worker imports.

A worker is one of many processes on its machine, and has no business with the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from posetune.spec.parameters import Scalar
from posetune.study.budget import Holding
from posetune.study.rungs import Standing, place

__all__ = ["Attempt", "CheckpointRecord", "Report", "TrialRecord"]


class Report(NamedTuple):
    """One report; a long sweep has a hundred thousand of them."""

    trial: int
    epoch: int
    value: float | None
    """The objective; None where it was not a number."""
    seconds: float = 0.0
    """What the epoch took."""
    decision: str = ""
    """What the rungs said of it."""


@dataclass(frozen=True)
class CheckpointRecord:
    """A committed checkpoint."""

    attempt: int
    epoch: int
    folder: str
    """Below the storage folder."""
    digest: str
    bytes: int
    partial_s: float | None = None
    """Seconds trained since the last whole epoch, where it was saved within one."""

    @property
    def progress(self) -> tuple[int, bool]:
        """What orders a trial's checkpoints: epochs finished, and whether there is more."""
        return self.epoch, self.partial_s is not None


@dataclass
class TrialRecord:
    """A trial as its events tell it."""

    id: int
    number: int
    params: dict[str, Scalar]
    seed: int
    attempt: int = 0
    """Number of the newest attempt; 0 before the first."""
    crashes: int = 0
    """Attempts whose worker died under a living driver."""
    excused: int = 0
    """The newest attempt that ended by no fault of the trial."""
    epoch: int = 0
    """Epochs reported."""
    value: float | None = None
    """The objective at the last report."""
    decisions: dict[int, str] = field(default_factory=dict)
    """What the rungs said of its reports, by epoch; for the driver only."""
    seconds: float = 0.0
    state: str | None = None
    """COMPLETE, PRUNED or FAILED once told."""
    reason: str = ""
    checkpoints: list[CheckpointRecord] = field(default_factory=list)
    placement: dict[str, Any] = field(default_factory=dict)
    """Node, device and threads of the newest attempt that began to train."""
    holding: Holding = field(default_factory=Holding)
    """For how long its attempts have held their resources."""
    set_aside: int = 0
    """The newest attempt that the budget ended; 0 where none was."""

    def release_checkpoints(self) -> list[CheckpointRecord]:
        """Return the checkpoints that nothing needs any more, and forget them.

        An open trial keeps its newest two (the newest may turn out broken), a complete one its
        last, which holds the model; a trial that was cut or failed keeps none. A checkpoint that
        was followed by one that is not further had turned out broken.
        """
        kept: list[CheckpointRecord] = []
        for checkpoint in self.checkpoints:
            kept = [c for c in kept if c.progress < checkpoint.progress]
            kept.append(checkpoint)
        needed = {None: 2, "COMPLETE": 1}.get(self.state, 0)
        kept = kept[len(kept) - needed :] if needed < len(kept) else kept
        released = [c for c in self.checkpoints if c not in kept]
        self.checkpoints = kept
        return released

    def excuse(self, attempt: int) -> None:
        """Take back that an attempt counts as a crash, before or after the next one began."""
        if attempt == self.attempt:
            self.excused = attempt
        else:
            self.crashes -= 1

    def place(self, standing: Standing | None, mode: str) -> tuple[float, ...]:
        """Return what trials are sorted by, as `rungs.place` does."""
        return place(self.number, standing, epochs=self.epoch, value=self.value, mode=mode)

    @property
    def handed_over(self) -> bool:
        """Whether the newest attempt ended with a checkpoint because it was told to."""
        newest = self.checkpoints[-1] if self.checkpoints else None
        return newest is not None and newest.attempt == self.attempt and newest.progress[1]


@dataclass(frozen=True)
class Attempt:
    """One go at a trial."""

    trial: int
    number: int
    crashes: int
    """How often the trial's worker has died so far, in all lives of the driver."""
    seed: int
    params: Mapping[str, Scalar]
    checkpoints: tuple[CheckpointRecord, ...]
    """Committed checkpoints to continue from, newest first."""
