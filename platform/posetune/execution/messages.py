"""Defines what the driver and a trial's worker say to each other, as typed values.

The driver gives a worker an `Assignment`; with every step the worker answers with one of the
messages below. Tune carries both as dictionaries, the `config` of a trial and the result of a step:
the functions of this module are the only code that knows their keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from posetune.study.faults import Fault
from posetune.study.records import CheckpointRecord
from posetune.trial.run import Assignment, EpochResult, Started

__all__ = [
    "UNSAVED",
    "Message",
    "Trained",
    "TrialFailed",
    "TrialHandedOver",
    "TrialRefused",
    "TrialStarted",
    "TrialWaits",
    "WorkerBroken",
    "assigned_config",
    "assignment_of",
    "energy_of",
    "number_of",
    "pack",
    "suggested_config",
    "unpack",
]

UNSAVED = "told to stop where nothing could be saved"
"""What is said of an attempt that was told to stop and leaves no checkpoint."""

_NUMBER = "posetune_trial"
_ASSIGNMENT = "posetune_assignment"
_MESSAGE = "posetune_message"


@dataclass(frozen=True)
class TrialStarted:
    """Says that the trial is built and about to train."""

    started: Started
    handle: Any
    """Ray's handle of the worker, by which the driver kills one that does not listen."""
    node: str
    """Ray's id of the node that the worker is on."""


@dataclass(frozen=True)
class Trained:
    """Says that the trial has trained an epoch and written its checkpoint."""

    result: EpochResult


@dataclass(frozen=True)
class TrialWaits:
    """Says that the trial cannot go on now, and tries again with the next step."""

    reason: str


@dataclass(frozen=True)
class TrialHandedOver:
    """Says that the trial was told to stop, and has stopped."""

    checkpoint: CheckpointRecord | None
    """The checkpoint of the epoch under way; None where nothing could be saved."""
    why: str = UNSAVED
    """Why there is none, for the record of an attempt that is excused."""
    reached: int = 0
    """How far the epoch was, in the trainable's own count of its steps."""
    is_asked: bool = True
    """Whether the driver asked for it; otherwise the process was told by a signal."""
    energy_j: float | None = None
    """Joules of its GPUs since its last epoch; None if not known."""


@dataclass(frozen=True)
class TrialFailed:
    """Says that the trial cannot go on, and must not be tried again."""

    fault: Fault
    energy_j: float | None = None
    """Joules of its GPUs since its last epoch; None if not known."""


@dataclass(frozen=True)
class WorkerBroken:
    """The attempt has failed, and another process may try again: this one ends with its next step.

    The driver hears what went wrong before the process is gone.
    """

    fault: Fault
    energy_j: float | None = None
    """Joules of its GPUs since its last epoch; None if not known."""


@dataclass(frozen=True)
class TrialRefused:
    """Says that no trial of the sweep may go on, because its store has changed."""

    reason: str


Message: TypeAlias = (
    TrialStarted
    | Trained
    | TrialWaits
    | TrialHandedOver
    | TrialFailed
    | WorkerBroken
    | TrialRefused
)


def pack(message: Message) -> dict[str, Any]:
    """Return a message as the result of a step.

    It never says `done`: that would end the trial behind the scheduler's back, and the study's.
    """
    return {_MESSAGE: message}


def unpack(result: Mapping[str, Any]) -> Message:
    """Return the message in the result of a step."""
    message: Message = result[_MESSAGE]
    return message


def energy_of(message: Message) -> float | None:
    """Return the joules of the attempt's GPUs since the message before; None if not known."""
    match message:
        case Trained(result):
            return result.energy_j
        case TrialHandedOver() | TrialFailed() | WorkerBroken():
            return message.energy_j
        case _:
            return None


def suggested_config(number: int) -> dict[str, Any]:
    """Return the config of a trial that has no attempt yet."""
    return {_NUMBER: number}


def assigned_config(number: int, assignment: Assignment) -> dict[str, Any]:
    """Return the config of a trial's attempt."""
    return {_NUMBER: number, _ASSIGNMENT: assignment}


def number_of(config: Mapping[str, Any]) -> int:
    """Return the number in the study of the trial with this config."""
    return int(config[_NUMBER])


def assignment_of(config: Mapping[str, Any]) -> Assignment:
    """Return what the attempt with this config is to do."""
    assignment: Assignment = config[_ASSIGNMENT]
    return assignment
