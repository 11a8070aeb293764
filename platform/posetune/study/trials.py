"""Holds a trial as its events tell it: its state, its resources and its checkpoints.

`SweepState` alone changes a `TrialRecord`; everybody else reads it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from posetune.spec.parameters import Scalar
from posetune.spec.sweep import Objective
from posetune.study.faults import Fault
from posetune.study.records import CheckpointRecord, EpochValue, Remark
from posetune.study.search.rungs import Decision, Standing, place
from posetune.study.states import TrialState

__all__ = ["Holding", "TrialRecord", "split_needed"]


@dataclass(slots=True)
class Holding:
    """For how long a trial's attempts have held their resources.

    Its methods return the seconds that an event adds.
    """

    seconds: float = 0.0
    since: float | None = None
    """Time up to which an attempt under way is counted; seconds since the epoch."""

    def begin(self, at: float, *, follows_death: bool) -> float:
        """Begin an attempt; if the one before died under the same driver, it did so about now."""
        added = self.seen(at) if follows_death else 0.0
        self.since = None
        return added

    def let_go(self) -> None:
        """Stop counting: nothing is known of what went on after the last event of a driver."""
        self.since = None

    def end(self, at: float) -> float:
        """Count up to the end of the trial."""
        added = self.seen(at)
        self.since = None
        return added

    def placed(self, at: float, setup_s: float) -> float:
        """Count what the attempt's stages and its trial took until they stood."""
        self.seconds += setup_s
        self.since = at
        return setup_s

    def seen(self, at: float) -> float:
        """Count up to a sign of life: a report or a checkpoint."""
        if self.since is None:
            return 0.0
        added = max(0.0, at - self.since)
        self.seconds += added
        self.since = at
        return added


@dataclass(slots=True)
class TrialRecord:
    """A trial as its events tell it."""

    number: int
    params: dict[str, Scalar]
    seed: int
    asked: float = 0.0
    """When the sampler was asked for it; seconds since the epoch."""
    attempt: int = 0
    """Number of the newest attempt; 0 before the first."""
    crashes: int = 0
    """Attempts whose worker died under a living driver, but for those that were excused."""
    blamed: int = 0
    """The newest attempt whose end counts as a crash; 0 where none does."""
    excused: int = 0
    """The newest attempt that ended by no fault of the trial; 0 where none did."""
    failed: int = 0
    """The newest attempt that is known to have ended with an error or its worker; 0 for none."""
    fault: Fault | None = None
    """What went wrong in it."""
    full_gpus: int = 0
    """Attempts for which the GPU's memory did not suffice."""
    stalls: int = 0
    """How often in a row attempts were told to stop and had come no further than one before."""
    reached: tuple[int, int] = (0, -1)
    """The furthest point at which an attempt was told to stop: epochs finished, and steps."""
    set_aside: int = 0
    """The newest attempt that was ended for the budget or another sweep; 0 where none was."""
    why_aside: str = ""
    """Why the slot of that attempt went to another sweep; empty where the budget ended it."""
    paused: int = 0
    """The newest attempt that ended because others promised more; 0 where none did."""
    why: str = ""
    """Why the newest report's decision was taken, where it said so."""
    handed_over: int = 0
    """The newest attempt that ended with a checkpoint because it was told to; 0 where none did."""
    epoch: int = 0
    """Number of epochs that were reported."""
    value: float | None = None
    """The objective at the last report."""
    values: dict[int, float | None] = field(default_factory=dict)
    """The objective at every report, by epoch; None where it was not a number."""
    improvements: list[EpochValue] = field(default_factory=list)
    """The epochs at which it stood better than ever before; the last of them is its best."""
    decision: Decision = Decision.CONTINUE
    """What the rungs decided after the last report."""
    standing: Standing | None = None
    """Where it is compared with others; None before the first rung."""
    seconds: float = 0.0
    """Seconds that the reported epochs took."""
    last_s: float = 0.0
    """Seconds that the last reported epoch took."""
    state: TrialState | None = None
    """COMPLETE, PRUNED, FAILED or STOPPED once it has ended."""
    reason: str = ""
    ended: float | None = None
    """When it ended; seconds since the epoch."""
    checkpoints: list[CheckpointRecord] = field(default_factory=list)
    """Checkpoints that are kept, in the order in which they were committed."""
    placement: dict[str, Any] = field(default_factory=dict)
    """Node, device and threads of the newest attempt that began to train."""
    passed_over: tuple[str, ...] = ()
    """Folders of the checkpoints that this attempt found damaged, or gone."""
    stages: dict[str, str] = field(default_factory=dict)
    """The key of each shared stage product that it used."""
    holding: Holding = field(default_factory=Holding)
    """For how long its attempts have held their resources."""
    energy_j: float | None = None
    """Joules that its attempts have taken of their GPUs; None where that was not measured."""
    chosen_by: str = ""
    """Who chose its parameters, as person@host; empty where the sampler did."""
    stop_after: int | None = None
    """The epoch after which it ends, because a person wants it to stop; None where nobody does."""
    stopped_by: str = ""
    """Who wants it to stop, as person@host."""
    is_pinned: bool = False
    """Whether a person lets it run to its last epoch, whatever the pruner says."""
    parent: int | None = None
    """The trial from whose checkpoint it goes on; None where it began anew."""
    parent_epoch: int = 0
    """The epoch of its parent that it goes on from; 0 where it has none."""
    extended_to: int | None = None
    """Its last epoch, where a person chose another than the sweep's."""
    taught: tuple[TrialState, int] | None = None
    """How it ended before it was extended, and after which epoch: what the sampler knows of it."""
    remarks: list[Remark] = field(default_factory=list)
    """What people wrote about it."""
    tags: dict[str, str] = field(default_factory=dict)
    """What people tagged it with."""

    def count_crash(self, attempt: int) -> None:
        """Count the end of an attempt against the trial."""
        self.crashes += 1
        self.blamed = attempt

    @property
    def best(self) -> EpochValue | None:
        """The epoch with the best value, the earlier of equal ones; None while there is none."""
        return self.improvements[-1] if self.improvements else None

    def chosen(self, objective: Objective) -> EpochValue | None:
        """Return the epoch that counts: the best or the last, as the objective says."""
        if objective.select == "best":
            return self.best
        return None if self.value is None else EpochValue(self.epoch, self.value)

    def decided(self, epoch: int) -> Decision:
        """Return what the rungs said of an epoch that was reported: only the last one ends it.

        A trial that was paused after it has gone on since.
        """
        is_last = epoch == self.epoch and self.decision.is_end
        return self.decision if is_last else Decision.CONTINUE

    def place(self, objective: Objective) -> tuple[float, ...]:
        """Return what trials are sorted by, as `rungs.place` does."""
        return place(
            self.number, self.standing, epochs=self.epoch, value=self.value, objective=objective
        )

    @property
    def has_handed_over(self) -> bool:
        """Whether the newest attempt ended with a checkpoint because it was told to."""
        return 0 < self.attempt == self.handed_over

    @property
    def is_set_aside(self) -> bool:
        """Whether the newest attempt was ended for the budget or another sweep."""
        return 0 < self.attempt == self.set_aside

    @property
    def is_paused(self) -> bool:
        """Whether the trial is open and waits until it promises most."""
        return self.state is None and 0 < self.attempt == self.paused

    @property
    def has_failed_attempt(self) -> bool:
        """Whether the newest attempt is known to have ended with an error or its worker."""
        return 0 < self.attempt == self.failed

    @property
    def is_attempt_over(self) -> bool:
        """Whether it is known how the newest attempt ended; nothing more is taken from it."""
        ends = (self.failed, self.handed_over, self.set_aside, self.paused, self.excused)
        return self.state is not None or (self.attempt > 0 and self.attempt in ends)

    @property
    def is_excused(self) -> bool:
        """Whether the newest attempt ended by no fault of the trial."""
        return 0 < self.attempt == self.excused


def split_needed(
    checkpoints: Sequence[CheckpointRecord],
    state: TrialState | None,
    *,
    best: int | None = None,
    is_among_best: bool = False,
    begun_from: Collection[int] = (),
) -> tuple[list[CheckpointRecord], list[CheckpointRecord]]:
    """Return the checkpoints of a trial that are needed, and those that nothing needs any more.

    Every trial that keeps any keeps that of its best epoch. Besides, an open trial keeps its newest
    two (the newest may turn out broken), and one that has ended its last; that of a stopped trial
    is where it goes on if a person takes it up again. A trial that was cut or failed keeps any only
    while it is among the sweep's best. A checkpoint that was followed by one
    that is not further had turned out broken.

    Args:
        checkpoints: in the order in which they were committed.
        state: how the trial ended; None while it is open.
        best: the best epoch; None where its checkpoint is not kept for that.
        is_among_best: whether the trial is among the sweep's best; it counts for one that was cut
            or failed.
        begun_from: the epochs from which other trials have yet to go on.
    """
    kept: list[CheckpointRecord] = []
    for checkpoint in checkpoints:
        kept = [c for c in kept if c.progress < checkpoint.progress]
        kept.append(checkpoint)
    always = {None: 2, TrialState.COMPLETE: 1, TrialState.STOPPED: 1}
    newest = always.get(state, 1 if is_among_best else 0)
    after = len(kept) - newest
    keeps_best = newest > 0
    needed = [
        checkpoint
        for place, checkpoint in enumerate(kept)
        if place >= after
        or (keeps_best and checkpoint.is_whole and checkpoint.epoch == best)
        or (checkpoint.is_whole and checkpoint.epoch in begun_from)
    ]
    return needed, [c for c in checkpoints if c not in needed]
