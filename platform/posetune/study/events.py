"""Defines the events of a sweep, as one frozen class each, with all that was decided.

A sweep is the list of its events in one total order. `state.SweepState.apply` alone says what they
mean; `decisions.decider.Decider` makes those that a driver decides, `tables.journal` writes and
reads them, as rows that `tables.event_rows` makes. What was decided live (a cut, an audit, a crash
that counts, a checkpoint that is let go) is a field of the event, so nobody decides it again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from posetune.spec.parameters import Scalar
from posetune.study.act_events import ActEvent
from posetune.study.faults import Fault
from posetune.study.records import CheckpointRecord, ExpectedGain
from posetune.study.search.rungs import Decision
from posetune.study.states import TrialState

__all__ = [
    "BEST_COUNTS_SINCE",
    "NAN_IS_CUT_SINCE",
    "POINTS_ONCE_SINCE",
    "SEMANTICS",
    "AttemptBegun",
    "AttemptExcused",
    "AttemptFailed",
    "AttemptPlaced",
    "BaselinesMeasured",
    "DriverClosed",
    "DriverOpened",
    "EnergyMeasured",
    "EpochRepeated",
    "Event",
    "HandedOver",
    "MemoryPeaked",
    "Reported",
    "RoomAwaited",
    "SetAside",
    "ShareMeasured",
    "StageUsed",
    "SweepStarted",
    "TrialAsked",
    "TrialEnded",
]

SEMANTICS = 3
"""The rules of sampler, rungs, ranking and budget that a sweep begins with today.

Raise it with every change of a default that would make a sweep that is under way choose otherwise,
and let the code that changed ask `SweepState.semantics` which rules a sweep was begun with.
"""
BEST_COUNTS_SINCE = 2
"""From these rules on the best epoch of a trial counts and its checkpoint is kept; before, the last
one counted, and nothing was kept of a trial that was cut or failed."""
NAN_IS_CUT_SINCE = 3
"""From these rules on a trial whose objective is not a number at a rung is cut there; before, it
trained to its last epoch."""
POINTS_ONCE_SINCE = 3
"""From these rules on no point of a finite space is drawn twice, a choice of numbers is a grid,
start values cover the space, and trials that are audited teach the sampler only up to where they
would have been cut. Before, points were drawn again, every choice was one of labels, TPE's first
ten trials were drawn at random, and audited trials counted as complete."""


# -- the sweep as a whole ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SweepStarted:
    """A sweep begins; always the first event."""

    at: float
    """Time of the event, in seconds since the epoch; every event has it."""
    semantics: int
    """Number of the rules that the sweep keeps to its end; see `SEMANTICS`."""
    prior: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """The trials of other sweeps that its sampler knows: `start_from.PriorTrial`, as JSON."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """What to say of them."""
    by: str = ""
    """Who started it, as person@host; empty where it is not known."""


@dataclass(frozen=True, slots=True)
class DriverOpened:
    """A driver takes the sweep over; what the one before did after its last event is not known."""

    at: float
    budget: dict[str, Any]
    """Limits of the budget from now on; they may have grown."""
    commit: dict[str, Any]
    """The code of this driver: the commit, and the digest of what differs from it."""
    by: str = ""
    """Who gave the command, as person@host; empty where it is not known."""
    machine: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What the file says of the machine from now on: `SweepSpec.machine`."""
    finalists: tuple[tuple[float, ...], ...] = ()
    """Values of trials of this sweep that were trained again with further seeds, for each of these
    trials; they tell the noise between seeds."""


@dataclass(frozen=True, slots=True)
class DriverClosed:
    """The driver stops by itself, and says why."""

    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class ShareMeasured:
    """A probe found how much of a GPU a trial takes; each trial gets that share from now on."""

    at: float
    gpu: float
    peak_bytes: int = 0
    context_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RoomAwaited:
    """A trial has no place on the cluster; with an empty text none waits any more."""

    at: float
    what: str


@dataclass(frozen=True, slots=True)
class BaselinesMeasured:
    """The trivial baselines on validation are known."""

    at: float
    values: dict[str, float]


# -- a trial -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrialAsked:
    """The sampler, or a person, chose the parameters of a new trial."""

    at: float
    trial: int
    params: dict[str, Scalar]
    seed: int
    by: str = ""
    """Who chose the parameters; empty where the sampler did."""
    parent: int | None = None
    """The trial from whose checkpoint it goes on; None where it begins anew."""
    parent_epoch: int = 0
    """The epoch of that checkpoint."""
    epochs: int | None = None
    """Its last epoch, where that is not the sweep's."""


@dataclass(frozen=True, slots=True)
class AttemptBegun:
    """An attempt at a trial begins; what older ones say is refused from now on."""

    at: float
    trial: int
    attempt: int
    from_epoch: int
    """Number of epochs that were reported before the attempt."""
    follows_death: bool = False
    """Whether the attempt before ended because its worker died under the same driver."""
    is_crash: bool = False
    """Whether the end of the attempt before counts as a crash of the trial."""


@dataclass(frozen=True, slots=True)
class AttemptPlaced:
    """An attempt begins to train: its worker runs on a node and has its stages."""

    at: float
    trial: int
    attempt: int
    facts: dict[str, Any]
    """Node, device, threads, and `setup_s`, the seconds that stages and start took."""
    passed_over: tuple[str, ...] = ()
    """Folders of the trial's checkpoints that are newer than the one that the attempt goes on from:
    they were found damaged, or are gone."""


@dataclass(frozen=True, slots=True)
class StageUsed:
    """A trial uses the product of a shared stage."""

    at: float
    trial: int
    stage: str
    key: str
    trained: bool
    """Whether the stage was trained for this trial; otherwise its product was found."""


@dataclass(frozen=True, slots=True)
class Reported:
    """An epoch was trained and reported for the first time, and the rungs decided."""

    at: float
    trial: int
    attempt: int
    epoch: int
    value: float | None
    """Value of the objective; None where it was not a number."""
    decision: Decision
    seconds: float
    why: str = ""
    """Why the trial does not go on, where the decision has more to say than its name."""
    is_audited: bool = False
    """Whether ASHA would have cut the trial here, and it runs on to show what cutting costs."""
    checkpoint: CheckpointRecord | None = None
    released: tuple[str, ...] = ()
    """The folders of the trial's checkpoints that nothing needs from now on."""
    displaced: tuple[int, ...] = ()
    """The ended trials that are not among the sweep's best any more, since this one is: nothing
    needs their checkpoints from now on."""
    metrics: Mapping[str, float | None] | None = None
    """All metrics of the report; None where events are read without them."""


@dataclass(frozen=True, slots=True)
class EpochRepeated:
    """An epoch was trained again after its checkpoint was lost; its first report stands."""

    at: float
    trial: int
    attempt: int
    epoch: int
    checkpoint: CheckpointRecord | None = None
    released: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HandedOver:
    """An attempt that was told to stop within an epoch saved where it was."""

    at: float
    trial: int
    attempt: int
    checkpoint: CheckpointRecord
    released: tuple[str, ...] = ()
    reached: int = 0
    """How far the epoch was, in the trainable's own count of its steps."""
    is_stalled: bool = False
    """Whether it came no further than an attempt before that was told to stop as well."""
    is_crash: bool = False
    """Whether that counts against the trial: from the third time on that it comes no further."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """A trial ends its attempt after an epoch, or before it has a place, and stays open.

    The budget has no room for another epoch of it now, or its slot goes to another sweep.
    """

    at: float
    trial: int
    attempt: int
    why: str = ""
    """Why its slot goes to another sweep; empty where the budget has no room for it."""


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt ended with an error, or with its worker."""

    at: float
    trial: int
    attempt: int
    fault: Fault
    """What went wrong."""
    is_crash: bool = False
    """Whether that counts against the trial, which fails with the fourth."""


@dataclass(frozen=True, slots=True)
class AttemptExcused:
    """An attempt ended by no fault of its trial, for example because its node left."""

    at: float
    trial: int
    attempt: int
    why: str
    takes_back: bool = False
    """Whether the end of the attempt had been counted as a crash before."""


@dataclass(frozen=True, slots=True)
class MemoryPeaked:
    """A trial has taken more of its GPU's memory than was measured before."""

    at: float
    trial: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class EnergyMeasured:
    """An attempt has taken energy, by the counter of its GPUs."""

    at: float
    trial: int
    attempt: int
    joules: float
    """Energy since the event before of the attempt, or since its start. Where it asked for a part
    of a GPU, that part of what the whole GPU has taken."""


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """A trial has ended for good."""

    at: float
    trial: int
    state: TrialState
    epoch: int
    value: float | None
    reason: str
    released: tuple[str, ...] = ()
    at_rest: bool = False
    """Whether no driver was at work, so that the time until then was not spent on it."""
    stops_sweep: str = ""
    """Why the sweep ends with it: too many trials failed alike. Empty where it goes on."""
    gain: ExpectedGain | None = None
    """What the rest of the sweep is expected to gain; None where `budget.patience` is not given, or
    too little is known."""


Event: TypeAlias = (
    SweepStarted
    | DriverOpened
    | DriverClosed
    | ShareMeasured
    | RoomAwaited
    | BaselinesMeasured
    | TrialAsked
    | AttemptBegun
    | AttemptPlaced
    | StageUsed
    | Reported
    | EpochRepeated
    | HandedOver
    | SetAside
    | AttemptFailed
    | AttemptExcused
    | MemoryPeaked
    | EnergyMeasured
    | TrialEnded
    | ActEvent
)
