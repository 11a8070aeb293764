"""What a sweep may spend: GPU-hours as they are counted, and which trial may train on.

GPU-hours are the seconds for which attempts hold their GPUs, times `resources.gpu`: from where an
attempt looks for its shared stages, through every epoch, also one that is trained again, to its
last committed event. A worker that died is counted until its death was noticed; what a worker did
after its driver died, or before it stood if it never did, is not known and not counted. A sweep
without GPUs (`gpu: 0`) counts the same seconds once, as trial-hours.

`Purse` follows from the committed events alone, so a resume stands where the last driver stood. Its
rule is `may_train`: a trial may hold its GPU for one more report if what is spent, the reports that
others have under way, its own, and what the leader needs to run to its last epoch fit into the
limit. The leader itself may go on until the limit is reached. A trial that may not is set aside: it
stays open. As every trial was let go on below the limit, it is exceeded by at most one report of
each running trial.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posetune.spec.sweep import SweepSpec
from posetune.study.rungs import Standing, compared_epochs

if TYPE_CHECKING:
    from posetune.study.records import TrialRecord

__all__ = ["Holding", "Purse", "unit"]


def unit(spec: SweepSpec) -> str:
    """Return what `budget.gpu_hours` counts in this sweep."""
    return "GPU-hours" if spec.resources.gpu else "trial-hours"


@dataclass(slots=True)
class Holding:
    """For how long a trial's attempts have held their resources; fed with its events in order."""

    seconds: float = 0.0
    since: float | None = None
    """Up to when it is counted, while an attempt holds them; seconds since the epoch."""

    def begin(self, at: float, *, follows_death: bool) -> None:
        """An attempt begins; if the one before died under the same driver, it did so about now."""
        if follows_death:
            self.seen(at)
        self.since = None

    def let_go(self, at: float) -> None:
        """Another driver takes over, and nothing is known of what went on since the last event."""
        self.since = None

    def ended(self, at: float) -> None:
        """Its end was told."""
        self.seen(at)
        self.since = None

    def started(self, at: float, setup_s: float) -> None:
        """Its stages and its trial stand, which took so long."""
        self.seconds += setup_s
        self.since = at

    def seen(self, at: float) -> None:
        """It is at work: a report or a checkpoint."""
        if self.since is not None:
            self.seconds += max(0.0, at - self.since)
            self.since = at


class Purse:
    """What a sweep has spent, and who may spend more."""

    def __init__(
        self,
        spec: SweepSpec,
        trials: list[TrialRecord],
        *,
        driven_s: float,
        audited: Collection[int] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take over what the events say.

        Args:
            spec: the sweep.
            trials: its trials; the list grows.
            driven_s: for how long earlier drivers were at work.
            audited: the trials that only show what cutting costs, and cannot lead; it grows.
            clock: seconds since the epoch.
        """
        self._spec, self._trials, self._audited, self._clock = spec, trials, audited, clock
        wall_hours = spec.budget.wall_hours
        self.ends_at = math.inf if wall_hours is None else clock() + 3600 * wall_hours - driven_s
        """When the hours by the clock are over; seconds since the epoch."""
        self.limit_s: float | None = None
        """For how long attempts may hold their resources."""
        self.share(spec)
        self.held_s = sum(trial.holding.seconds for trial in trials)
        """For how long they have."""
        self._trained_s = sum(trial.seconds for trial in trials)
        self._epochs = sum(trial.epoch for trial in trials)
        self._attempts = sum(trial.attempt for trial in trials)
        self._open = {trial.number for trial in trials if trial.state is None}
        self._running: set[int] = set()
        self._compared = compared_epochs(spec.pruner)
        self._values: dict[int, dict[int, float]] = {}
        """For each open trial its values where trials are compared."""
        self._last_s: dict[int, float] = {}
        """What the last epoch of each open trial took."""
        self._squares, self._pairs = 0.0, 0
        """Of the logarithms of the lengths of neighbouring epochs: squared differences, halved."""
        self._complete: dict[int, float] = {}
        """The best value of complete trials, at each epoch where trials are compared."""

    @property
    def limit(self) -> str:
        """The limit of GPU-hours, in words."""
        return f"the budget of {self._spec.budget.gpu_hours:g} {unit(self._spec)}"

    @property
    def spent(self) -> str:
        """Which limit is reached; empty while none is."""
        if self.limit_s is not None and self.held_s >= self.limit_s:
            return f"{self.limit} is spent"
        if self._clock() >= self.ends_at:
            return f"the budget of {self._spec.budget.wall_hours:g} hours is spent"
        return ""

    def share(self, spec: SweepSpec) -> None:
        """Count a trial's GPUs as a sweep says now."""
        self._spec, hours = spec, spec.budget.gpu_hours
        self.limit_s = None if hours is None else hours * 3600 / (spec.resources.gpu or 1.0)

    # -- the events ------------------------------------------------------------------------

    def take_over(self) -> None:
        """Another driver begins."""
        for trial in self._trials:
            trial.holding.let_go(self._clock())

    def begin(self, trial: TrialRecord, at: float, *, follows_death: bool) -> None:
        """An attempt begins."""
        self._count(trial, lambda: trial.holding.begin(at, follows_death=follows_death))
        self._attempts += 1
        self._open.add(trial.number)
        self._running.add(trial.number)

    def started(self, trial: TrialRecord, at: float, setup_s: float) -> None:
        """Its training begins."""
        self._count(trial, lambda: trial.holding.started(at, setup_s))

    def seen(self, trial: TrialRecord, at: float) -> None:
        """It committed something."""
        self._count(trial, lambda: trial.holding.seen(at))

    def reported(self, trial: TrialRecord, epoch: int, value: float | None, seconds: float) -> None:
        """It reported an epoch for the first time."""
        self._trained_s += seconds
        self._epochs += 1
        self.recall(trial.number, epoch, value, seconds)

    def recall(self, number: int, epoch: int, value: float | None, seconds: float) -> None:
        """Take over a report of before."""
        if epoch in self._compared and value is not None:
            self._values.setdefault(number, {})[epoch] = value
        before = self._last_s.get(number)
        if before and seconds:
            self._pairs += 1
            self._squares += math.log(seconds / before) ** 2 / 2
        self._last_s[number] = seconds

    def set_aside(self, number: int) -> None:
        """A trial no longer runs, and stays open."""
        self._running.discard(number)

    def told(self, trial: TrialRecord, at: float, state: str) -> None:
        """Its end was told."""
        self._count(trial, lambda: trial.holding.ended(at))
        self.ended(trial.number, state)

    def ended(self, number: int, state: str) -> None:
        """Take over an end."""
        self._running.discard(number)
        self._open.discard(number)
        self._last_s.pop(number, None)
        values = self._values.pop(number, {})
        if state == "COMPLETE":
            better = min if self._spec.objective.mode == "min" else max
            for epoch, value in values.items():
                self._complete[epoch] = better(value, self._complete.get(epoch, value))

    def _count(self, trial: TrialRecord, change: Callable[[], None]) -> None:
        before = trial.holding.seconds
        change()
        self.held_s += trial.holding.seconds - before

    # -- the rule --------------------------------------------------------------------------

    def may_train(self, trial: TrialRecord | None) -> bool:
        """Whether an open trial, or a new one (None), may hold its resources for a report more."""
        if self.limit_s is None:
            return True
        left_s = self.limit_s - self.held_s
        leader = self.leader
        if left_s <= 0 or (trial is not None and trial is leader):
            return left_s > 0
        others_s = self._under_way_s(trial, leader)
        own_s = self._report_s(trial) + self._restart_s(trial)
        reserve_s = self._missing_s(leader) + self._margin_s(leader) if leader else 0.0
        return own_s + others_s + reserve_s <= left_s

    @property
    def leader(self) -> TrialRecord | None:
        """The trial that what is left is reserved for, so that it can run to its last epoch.

        It is the first in the ranking of the open trials that can do so, unless a complete trial
        was better on its way. Where none can, the first.
        """
        mode = self._spec.objective.mode
        judged = [
            trial
            for number in self._open
            if (trial := self._trials[number]).value is not None and number not in self._audited
        ]
        judged.sort(key=lambda trial: trial.place(self._standing(trial), mode))
        leading = [trial for trial in judged if self._beats_the_complete(trial)]
        left_s = (self.limit_s or math.inf) - self.held_s - self._under_way_s()
        for trial in leading:
            own_s = self._report_s(trial) if trial.number in self._running else 0.0
            if self._missing_s(trial) - own_s <= left_s:
                return trial
        return next(iter(leading), None)

    def _beats_the_complete(self, trial: TrialRecord) -> bool:
        standing = self._standing(trial)
        if standing is None:
            return not self._complete
        epoch, value = standing
        best = self._complete.get(epoch)
        sign = 1 if self._spec.objective.mode == "min" else -1
        return best is None or sign * value < sign * best

    def _standing(self, trial: TrialRecord) -> Standing | None:
        values = self._values.get(trial.number)
        return max(values.items()) if values else None

    def _under_way_s(self, *but: TrialRecord | None) -> float:
        """Return what the reports under way will take, of all running trials but these."""
        running = (self._trials[number] for number in self._running)
        return sum(self._report_s(trial) for trial in running if trial not in but)

    def _missing_s(self, trial: TrialRecord) -> float:
        """Return what a trial needs to run to its last epoch."""
        missing = self._spec.pruner.max_epochs - trial.epoch
        return missing * self._report_s(trial) + self._restart_s(trial)

    def _margin_s(self, trial: TrialRecord) -> float:
        """Return what it may need beyond that.

        Two standard deviations of the sum of the missing epochs, whose mean is known from those
        that it has; and at least one report.
        """
        missing, done = self._spec.pruner.max_epochs - trial.epoch, max(1, trial.epoch)
        spread = math.sqrt(self._squares / self._pairs) if self._pairs else 0.0
        reports = max(1.0, 2 * spread * math.sqrt(missing + missing**2 / done))
        return reports * self._report_s(trial)

    def _report_s(self, trial: TrialRecord | None) -> float:
        """Return how long a trial's next report may take: as its others, or as everybody's."""
        if trial is not None and trial.epoch:
            return trial.seconds / trial.epoch
        return self._trained_s / self._epochs if self._epochs else 0.0

    def _restart_s(self, trial: TrialRecord | None) -> float:
        """Return what an attempt holds beside its epochs; nothing for one that runs."""
        if trial is not None and trial.number in self._running:
            return 0.0
        return max(0.0, self.held_s - self._trained_s) / max(1, self._attempts)
