"""Describes a sweep and its trials for readers: what their events come to, with the trials ranked.

The values are made by `reading`; nothing here reads a database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from posetune.spec.parameters import Scalar
from posetune.spec.sweep import SweepSpec
from posetune.study.acts.requests import Request
from posetune.study.budget import patience_over, target_reached
from posetune.study.records import (
    CheckpointRecord,
    EpochValue,
    ExpectedGain,
    Remark,
    Report,
    SweepBest,
)
from posetune.study.repeats import PointMean, point_means, rank_trials
from posetune.study.search.rungs import Standing, place
from posetune.study.state import StageUse
from posetune.study.states import SweepStatus, TrialState

__all__ = ["LeftOut", "StageUse", "SweepView", "TrialView"]


@dataclass(frozen=True)
class TrialView:
    """Describes a trial as its events tell it, for readers."""

    number: int
    state: TrialState
    params: dict[str, Scalar]
    epochs: int
    value: float | None
    """The objective at the last reported epoch."""
    seconds: float
    attempts: int
    seed: int
    reason: str
    mlflow_run_id: str | None
    chosen: EpochValue | None = None
    """The epoch that counts, its best or its last, as the sweep's `objective.select` says."""
    improvements: tuple[EpochValue, ...] = ()
    """The epochs at which it stood better than ever before; the last of them is its best."""
    checkpoints: tuple[CheckpointRecord, ...] = ()
    """Checkpoints that are kept, in the order in which they were committed."""
    placement: dict[str, Any] = field(default_factory=dict)
    """Node, device and threads of the newest attempt that began to train."""
    asked: float = 0.0
    """When the sampler was asked for it; seconds since the epoch."""
    ended: float | None = None
    """When it ended; None while it is open."""
    held_s: float = 0.0
    """For how long its attempts have held their resources."""
    energy_j: float | None = None
    """Joules that its attempts have taken of their GPUs; None where that was not measured."""
    standing: Standing | None = None
    """Where it is compared with others; None before the first rung."""
    stages: dict[str, str] = field(default_factory=dict)
    """The key of each shared stage product that it used."""
    last_epoch: int = 0
    """The epoch after which it is complete: the sweep's, or one that a person chose."""
    parent: int | None = None
    """The trial from whose checkpoint it goes on; None where it began anew."""
    chosen_by: str = ""
    """Who chose its parameters, as person@host; empty where the sampler did."""
    stopped_by: str = ""
    """Who wants it to stop, as person@host; empty where nobody does."""
    is_pinned: bool = False
    """Whether a person lets it run to its last epoch, whatever the pruner says."""
    remarks: tuple[Remark, ...] = ()
    """What people wrote about it."""
    tags: dict[str, str] = field(default_factory=dict)
    """What people tagged it with."""

    @property
    def checkpoint(self) -> CheckpointRecord | None:
        """The newest checkpoint that is kept."""
        return self.checkpoints[-1] if self.checkpoints else None

    @property
    def has_chosen_checkpoint(self) -> bool:
        """Whether the checkpoint of the epoch that counts is kept."""
        return self.chosen is not None and self.checkpoint_of(self.chosen.epoch) is not None

    def checkpoint_of(self, epoch: int) -> CheckpointRecord | None:
        """Return the checkpoint that is kept of the end of an epoch; None where there is none."""
        kept = [saved for saved in self.checkpoints if saved.is_whole and saved.epoch == epoch]
        return kept[-1] if kept else None


class LeftOut(NamedTuple):
    """Says which trials a stopped sweep has not begun or not finished."""

    never_started: int
    """Number of the trials that were never begun."""
    open: dict[int, int]
    """The trials that were stopped, and after which epoch."""


@dataclass(frozen=True)
class SweepView:
    """Describes a sweep as its events tell it, for readers."""

    id: int
    name: str
    state: SweepStatus
    spec: SweepSpec
    source: str
    store: str
    store_digest: str
    provenance: dict[str, Any]
    started: float
    trials: tuple[TrialView, ...]
    baselines: dict[str, float]
    reports: tuple[Report, ...] = ()
    """Reports of all trials, in the order of their arrival."""
    ended: tuple[int, ...] = ()
    """The trials that have ended, in the order of their ends."""
    audited: dict[int, int] = field(default_factory=dict)
    """The trials that ran on where ASHA would have cut them, and at which epoch."""
    stages: dict[str, StageUse] = field(default_factory=dict)
    best_metrics: dict[str, float | None] = field(default_factory=dict)
    """All that the best trial reported at the epoch that counts; only where one sweep is read."""
    bests: tuple[SweepBest, ...] = ()
    """Every best value that the sweep has had at any epoch, so each better than the one before."""
    stopped: str = ""
    """Why the last driver stopped."""
    keeps_best: bool = True
    """Whether the checkpoints of best epochs are kept; sweeps that were begun before there was a
    choice do not."""
    waits_for: str = ""
    """What a trial of a running sweep waits for, where one has no place on the cluster."""
    driven_s: float = 0.0
    """For how long drivers have been at work."""
    owner: str = ""
    """Who started it, as person@host; empty where that is not known."""
    held_by: str = ""
    """Who holds it, as person@host; empty while nobody does."""
    enqueued: tuple[dict[str, Scalar], ...] = ()
    """The parameters of the next trials, where people chose them."""
    waiting_requests: tuple[Request, ...] = ()
    """What people want of it and no driver has taken up."""
    remarks: tuple[Remark, ...] = ()
    """What people wrote about it."""
    tags: dict[str, str] = field(default_factory=dict)
    """What people tagged it with."""
    most_trials: int = 0
    """How many trials it can have: those of its budget, or of its whole search space."""
    used_up: str = ""
    """Why it has fewer trials than its budget, once it has them all."""
    gain: ExpectedGain | None = None
    """What the rest of it is expected to gain, as it was known last; None where that is not."""
    gains_in_noise: int = 0
    """At the ends of how many trials in a row that was less than the noise between seeds."""
    seq: int = 0
    """Number of its events."""

    @cached_property
    def standings(self) -> dict[int, Standing]:
        """Where each trial stands; one that has not reached the first rung is missing."""
        return {t.number: t.standing for t in self.trials if t.standing is not None}

    @cached_property
    def ranked(self) -> list[TrialView]:
        """The trials with a value, best first.

        Where the best epoch counts, they are sorted by the values there, or by the means of the
        trials that train the same parameters (`sampler.repeats`). Where the last one counts,
        trials that failed are left out, and the others are sorted as `rungs.place` sorts them.
        """
        if self.spec.objective.select == "best":
            ended = {t.number for t in self.trials if t.state.is_end}
            sign, repeats = self.spec.objective.sign, self.spec.sampler.repeats
            order = rank_trials(self._chosen_values, ended, sign=sign, repeats=repeats)
            by_number = {t.number: t for t in self.trials}
            return [by_number[number] for number in order]

        def key(trial: TrialView) -> tuple[float, ...]:
            return place(
                trial.number,
                self.standings.get(trial.number),
                epochs=trial.epochs,
                value=trial.value,
                objective=self.spec.objective,
            )

        judged = [t for t in self.trials if t.value is not None and t.state != TrialState.FAILED]
        return sorted(judged, key=key)

    @property
    def _chosen_values(self) -> dict[int, float]:
        return {t.number: t.chosen.value for t in self.trials if t.chosen is not None}

    @cached_property
    def means(self) -> dict[int, PointMean]:
        """The mean over the trials that train the same parameters, by the first one's number.

        It is empty where each trial has parameters of its own.
        """
        repeats = self.spec.sampler.repeats
        return point_means(self._chosen_values, repeats) if repeats > 1 else {}

    @cached_property
    def promotable(self) -> list[TrialView]:
        """The trials that reached the last rung that any has reached, best first.

        In a sweep that is finished, they are the complete ones.
        """
        last = self.last_rung
        return [t for t in self.ranked if self.standings.get(t.number, (0, 0.0))[0] == last]

    @property
    def last_rung(self) -> int:
        """The epoch of the last rung that any trial has reached; 0 while none has reached one."""
        return max((epoch for epoch, _ in self.standings.values()), default=0)

    @property
    def candidate(self) -> TrialView | None:
        """The trial that `promote` takes: the best promotable one that has its checkpoint.

        Where none has it, the best one, so that a message can name it.
        """
        kept = (t for t in self.promotable if t.has_chosen_checkpoint)
        return next(kept, next(iter(self.promotable), None))

    @property
    def best(self) -> TrialView | None:
        """The best trial, which is the first in the ranking."""
        return next(iter(self.ranked), None)

    @property
    def trained_s(self) -> float:
        """Training time of all trials."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def gpu_hours(self) -> float:
        """GPU-hours as the budget counts them; trial-hours where trials have no GPU."""
        held_s = sum(trial.held_s for trial in self.trials)
        return held_s * self.spec.resources.gpus_or_one / 3600

    @property
    def energy_j(self) -> float | None:
        """Joules of GPUs, of the trials of which it was measured; None where it was of none."""
        known = [trial.energy_j for trial in self.trials if trial.energy_j is not None]
        return sum(known) if known else None

    @property
    def target_reached(self) -> str:
        """By whom the target of its budget is reached, in words; empty where there is none."""
        return target_reached(self.spec, self.bests)

    @property
    def patience_over(self) -> str:
        """Why its patience is over, in words; empty while it is not."""
        return patience_over(self.spec, self.gain, self.gains_in_noise)

    @property
    def left_out(self) -> LeftOut:
        """Which trials a stopped sweep has not begun or not finished; none while a driver runs."""
        if self.state == SweepStatus.RUNNING:
            return LeftOut(0, {})
        stopped = (TrialState.INTERRUPTED, TrialState.PAUSED)
        open_trials = {t.number: t.epochs for t in self.trials if t.state in stopped}
        return LeftOut(self.most_trials - len(self.trials), open_trials)

    @property
    def leaders(self) -> tuple[int, int]:
        """The epoch at which the first in the ranking are compared, and how many they are.

        They are 0 where trials are compared by their best epochs.
        """
        if self.spec.objective.select == "best":
            return 0, 0
        if self.best is None or self.best.number not in self.standings:
            return 0, 0
        top, _ = self.standings[self.best.number]
        return top, sum(self.standings.get(t.number, (0, 0.0))[0] == top for t in self.ranked)
