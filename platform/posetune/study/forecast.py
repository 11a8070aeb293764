"""What a sweep will take, as intervals: by simulating what is left of it, many times.

Each replication runs the rest of the sweep with the real rungs and the real rule of the budget, on
trials that are drawn (`prospects`).

An interval is from the tenth to the ninetieth percentile of the replications; on the way a little
wider (`WIDENING`).
"""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from posetune.study.budget import Holding, Purse
from posetune.study.prospects import Draw, Prospects, Situation
from posetune.study.records import TrialRecord
from posetune.study.rungs import Decision, Rungs
from posetune.study.view import SweepView, TrialView

__all__ = [
    "Forecast",
    "Foresight",
    "Interval",
    "Outlook",
    "Situation",
    "forecast",
    "forecast_sweep",
]

REPLICATIONS = 40
WIDENING = 1.25
"""Of intervals on the way: without it they covered 0.70 on 60 recorded sweeps (other seeds than
those of docs/results/forecast.md), because a sweep has more surprises than the model."""
HAND_OVER_S = 3.0
"""How long the trials have to save when a limit is reached (see `execution.handing_over`)."""
FIRST_S, EVERY_S, SHARE = 5.0, 20.0, 50
"""Before the first forecast of a sweep under way; between two at least, and at least so many times
what one takes."""


class Interval(NamedTuple):
    """Where a figure will lie with 80 %, and its median."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Forecast:
    """Totals of a sweep, with what is behind it."""

    epochs: Interval
    held_s: Interval
    """For how long attempts hold their resources: GPU-hours, but for the factor."""
    wall_s: Interval
    """With a driver at work."""
    ends_by: dict[str, float]
    """The share of replications that each limit ended: trials, gpu_hours, wall_hours."""


def forecast_sweep(view: SweepView) -> Forecast | None:
    """Forecast a sweep on its way; None before its first report, and where nothing is left."""
    ended = [t for t in view.trials if t.state in ("COMPLETE", "PRUNED", "FAILED")]
    if not view.reports or len(ended) >= view.spec.budget.trials:
        return None
    attempts = sum(trial.attempts for trial in view.trials)
    beside_s = sum(trial.held_s - trial.seconds for trial in view.trials)
    situation = Situation(
        spec=view.spec,
        slots=_peak(view.trials),
        setup_s=max(0.0, beside_s) / max(1, attempts),
        trials=view.trials,
        reports=view.reports,
        driven_s=view.driven_s,
    )
    return forecast(situation)


class Outlook(NamedTuple):
    """A forecast, and when it was made."""

    forecast: Forecast
    reports: int
    """That it rests on."""
    driven_s: float
    """For how long drivers had been at work."""


class Foresight:
    """The forecast of one sweep under way, for all who show it.

    It is made anew now and then, by whichever of their threads asks when it is due: the driver's
    loop needs the core that it takes.
    """

    def __init__(self, first_s: float = FIRST_S) -> None:
        """Begin; the first forecast is due after `first_s`."""
        self._due = time.monotonic() + first_s
        self._lock = threading.Lock()
        self._last: Outlook | None = None

    def look(self, read: Callable[[], SweepView]) -> Outlook | None:
        """Return the last forecast; None before the first report.

        Args:
            read: returns the sweep as it is now; called when a new one is due.
        """
        with self._lock:
            if time.monotonic() >= self._due:
                begun, view = time.thread_time(), read()
                found = forecast_sweep(view)
                self._last = None
                if found is not None:
                    self._last = Outlook(found, len(view.reports), view.driven_s)
                taken = time.thread_time() - begun
                self._due = time.monotonic() + max(EVERY_S, SHARE * taken)
            return self._last


def forecast(situation: Situation, *, replications: int = REPLICATIONS, seed: int = 0) -> Forecast:
    """Simulate the rest of a sweep; the same situation and seed give the same forecast.

    Where nothing was measured and nothing reported, only the epochs mean something.
    """
    if not situation.reports and not situation.epoch_s:  # nobody knows when hours are over
        budget = situation.spec.budget.model_copy(update={"gpu_hours": None, "wall_hours": None})
        spec = situation.spec.model_copy(update={"budget": budget})
        situation = replace(situation, spec=spec, epoch_s=1.0)
    generator = np.random.default_rng(seed)
    model = Prospects(situation, generator, replications)
    ends = [_Rest(situation, draw, generator).run() for draw in model.draws()]
    widening = WIDENING if situation.reports else 1.0
    reasons = Counter(end.reason for end in ends)
    return Forecast(
        epochs=_interval([end.epochs for end in ends], widening),
        held_s=_interval([end.held_s for end in ends], widening),
        wall_s=_interval([end.wall_s for end in ends], widening),
        ends_by={reason: count / len(ends) for reason, count in reasons.most_common()},
    )


def _interval(values: Sequence[float], widening: float) -> Interval:
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return Interval(
        low=float(max(min(values), middle - widening * (middle - low))),
        middle=float(middle),
        high=float(min(max(values), middle + widening * (high - middle))),
    )


def _peak(trials: Sequence[TrialView]) -> int:
    """Return how many trials were at work at once, at most."""
    marks = [(t.asked, 1) for t in trials if t.attempts]
    marks += [(t.told, -1) for t in trials if t.attempts and t.told is not None]
    at_once, most = 0, 1
    for _, change in sorted(marks):
        at_once += change
        most = max(most, at_once)
    return most


@dataclass(frozen=True)
class _End:
    epochs: int
    held_s: float
    wall_s: float
    reason: str


class _Rest:
    """One replication: what a driver would do with the rest of the sweep."""

    def __init__(self, situation: Situation, draw: Draw, generator: np.random.Generator) -> None:
        self._situation, self._draw, self._generator = situation, draw, generator
        lower = situation.spec.objective.model_copy(update={"mode": "min"})
        self._spec = situation.spec.model_copy(update={"objective": lower})
        self._now = 0.0
        self._queue: list[tuple[float, int]] = []
        """When which trial ends its epoch."""
        self._trials = [_record(trial) for trial in situation.trials]
        self._rungs = Rungs(self._spec.pruner, "min", self._spec.sampler.seed)
        self._purse = Purse(
            self._spec, self._trials, driven_s=0.0, audited=self._rungs.audited, clock=lambda: 0.0
        )
        self._values = {n: value for (n, epoch), value in draw.recorded.items()}
        for report in situation.reports:
            value = draw.recorded.get((report.trial, report.epoch))
            if value is not None:
                self._rungs.replay(report.trial, report.epoch, value)
                self._purse.recall(report.trial, report.epoch, value, report.seconds)
        for trial in self._trials:
            trial.value = self._values.get(trial.number, 0.0) if trial.epoch else None
            if trial.state is not None:
                self._purse.ended(trial.number, trial.state)
        self._waiting = [t.number for t in self._trials if t.state is None]

    def run(self) -> _End:
        """Run it to its end."""
        hours, driven_s = self._spec.budget.wall_hours, self._situation.driven_s
        wall_left_s = math.inf if hours is None else hours * 3600 - driven_s
        reason = ""
        while not reason:
            self._fill_slots()
            if not self._queue:
                more = self._waiting or len(self._trials) < self._spec.budget.trials
                reason = "gpu_hours" if more else "trials"
            elif self._queue[0][0] >= wall_left_s:
                reason, self._now = "wall_hours", max(0.0, wall_left_s)
            else:
                self._now, number = heapq.heappop(self._queue)
                self._report(self._trials[number])
                reason = "gpu_hours" if self._purse.spent else ""
        if self._queue:
            self._now += float(self._generator.uniform(0, HAND_OVER_S))
        for _, number in self._queue:
            self._purse.seen(self._trials[number], self._now)
        epochs = sum(trial.epoch for trial in self._trials)
        # The first trials build the stages, as many of them at once as there are slots.
        stages_s = self._situation.stages_s
        wall_s = driven_s + self._now + stages_s / self._situation.slots
        return _End(epochs, self._purse.held_s + stages_s, wall_s, reason)

    def _fill_slots(self) -> None:
        budget, purse = self._spec.budget, self._purse
        while len(self._queue) < self._situation.slots:
            number = next((n for n in self._waiting if purse.may_train(self._trials[n])), None)
            if number is not None:
                self._waiting.remove(number)
            elif self._waiting or len(self._trials) >= budget.trials or not purse.may_train(None):
                return
            else:
                number = len(self._trials)
                self._trials.append(TrialRecord(number, number, {}, 0))
            self._begin(self._trials[number])

    def _begin(self, trial: TrialRecord) -> None:
        self._purse.begin(trial, self._now, follows_death=False)
        known = trial.number < len(self._situation.trials)
        if known and self._situation.trials[trial.number].state == "RUNNING":
            # Some of the epoch under way is over; all of it is counted when it is reported.
            over_s = float(self._generator.random() * self._draw.epoch_s[trial.number])
            self._purse.started(trial, self._now - over_s, 0.0)
            self._next(trial, after_s=-over_s)
        else:
            setup_s = self._situation.setup_s
            self._purse.started(trial, self._now + setup_s, setup_s)
            self._next(trial, after_s=setup_s)

    def _next(self, trial: TrialRecord, *, after_s: float = 0.0) -> None:
        seconds = self._draw.epoch_s[trial.number]
        jitter = self._draw.jitter
        varied = seconds * math.exp(jitter * self._generator.normal() - jitter**2 / 2)
        end = max(self._now, self._now + after_s + varied)
        heapq.heappush(self._queue, (end, trial.number))

    def _report(self, trial: TrialRecord) -> None:
        number, epoch = trial.number, trial.epoch + 1
        seconds = self._now - (trial.holding.since or 0.0)
        self._purse.seen(trial, self._now)
        if epoch == 1 and self._generator.random() < self._draw.failing:
            self._end(trial, "FAILED")
            return
        noise = self._draw.crossing * self._generator.normal()
        value = float(self._draw.worths[number]) + noise
        decision = self._rungs.report(number, epoch, value)
        trial.epoch, trial.value = epoch, value
        trial.seconds += seconds
        self._purse.reported(trial, epoch, value, seconds)
        if decision != Decision.CONTINUE:
            self._end(trial, "COMPLETE" if decision == Decision.COMPLETE else "PRUNED")
        elif self._purse.may_train(trial):
            self._next(trial)
        else:
            self._purse.set_aside(number)
            self._waiting.append(number)

    def _end(self, trial: TrialRecord, state: str) -> None:
        trial.state = state
        self._purse.ended(trial.number, state)


def _record(trial: TrialView) -> TrialRecord:
    ended = trial.state in ("COMPLETE", "PRUNED", "FAILED")
    return TrialRecord(
        id=trial.number,
        number=trial.number,
        params={},
        seed=0,
        attempt=trial.attempts,
        epoch=trial.epochs,
        seconds=trial.seconds,
        state=trial.state if ended else None,
        holding=Holding(trial.held_s),
    )
