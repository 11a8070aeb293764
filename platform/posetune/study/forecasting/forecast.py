"""Forecasts what a sweep will take, as intervals: by simulating what is left of it, many times.

Each replication runs the rest of the sweep as its driver would: the same `Decider` decides, and the
same `SweepState` takes in the events, on trials that are drawn (`forecast_model`).

An interval is from the tenth to the ninetieth percentile of the replications; on the way a little
wider (`WIDENING`).

The number of trials is an upper bound that somebody may have set to a million. So a forecast takes
a given time at most, and rests on the replications that came to an end in it; where these are too
few there is none.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from posetune.spec.sweep import SweepSpec
from posetune.study import events
from posetune.study.decisions.decider import Decider
from posetune.study.forecasting.forecast_model import Draw, ForecastInput, ForecastModel
from posetune.study.records import CheckpointRecord
from posetune.study.search.rungs import Decision
from posetune.study.state import SweepState
from posetune.study.states import TrialState
from posetune.study.view import SweepView, TrialView

__all__ = [
    "SIMULATION_S",
    "Forecast",
    "ForecastInput",
    "Forecaster",
    "Interval",
    "forecast",
    "forecast_sweep",
]

REPLICATIONS = 40
WIDENING = 1.25
"""Factor on the intervals of a sweep under way: without it they covered 0.70 on 60 recorded sweeps
(other seeds than those of docs/results/forecast.md), because a sweep has more surprises than the
model."""
HAND_OVER_S = 3.0
"""How long the trials have to save when a limit is reached (see `execution.preemption`)."""
SIMULATION_S = 2.0
"""For how long a forecast simulates while somebody waits for it, in seconds of this thread."""
BESIDE_S = 10.0
"""The same for one that is made beside a sweep under way."""
FEWEST = 3
"""Replications that a forecast needs."""
HORIZON = 10_000
"""Trials that a replication looks ahead at most; it does not come that far in `BESIDE_S`."""
LOOKS = 256
"""Events of a replication between two looks at the clock."""
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
    """Holds the totals of a sweep at its end, what is done already included."""

    epochs: Interval
    held_s: Interval
    """Seconds for which attempts hold their resources; GPU-hours follow from them."""
    wall_s: Interval
    """Seconds for which a driver is at work."""
    ends_by: dict[str, float]
    """The share of replications that each limit ended: trials, gpu_hours, cost, wall_hours."""
    reports: int
    """Number of reports on which the forecast rests."""
    driven_s: float
    """Seconds for which drivers had been at work when the forecast was made."""


def forecast_sweep(view: SweepView, *, seconds: float = SIMULATION_S) -> Forecast | None:
    """Forecast a sweep on its way.

    None before its first report, where nothing is left, and where there is too much to simulate.

    Args:
        view: the sweep.
        seconds: for how long to simulate at most.
    """
    ended = [t for t in view.trials if t.state.is_end]
    if not view.reports or len(ended) >= view.most_trials:
        return None
    attempts = sum(trial.attempts for trial in view.trials)
    beside_s = sum(trial.held_s - trial.seconds for trial in view.trials)
    given = ForecastInput(
        spec=view.spec.with_trials(view.most_trials),
        slots=_peak(view.trials),
        setup_s=max(0.0, beside_s) / max(1, attempts),
        trials=view.trials,
        reports=view.reports,
        audited=view.audited,
        driven_s=view.driven_s,
    )
    return forecast(given, seconds=seconds)


class Forecaster:
    """Keeps the forecast of one sweep under way, for everything that shows it.

    It is made anew now and then, by whichever of their threads asks when it is due: the driver's
    loop needs the core that it takes.
    """

    def __init__(self, first_s: float = FIRST_S, *, simulation_s: float = BESIDE_S) -> None:
        """Begin; the first forecast is due after `first_s`, and simulates that long at most."""
        self._due = time.monotonic() + first_s
        self._simulation_s = simulation_s
        self._lock = threading.Lock()
        self._last: Forecast | None = None

    def latest(self, read: Callable[[], SweepView]) -> Forecast | None:
        """Return the last forecast; None before the first report.

        Args:
            read: returns the sweep as it is now; called when a new one is due.
        """
        with self._lock:
            if time.monotonic() >= self._due:
                begun = time.thread_time()
                self._last = forecast_sweep(read(), seconds=self._simulation_s)
                taken = time.thread_time() - begun
                self._due = time.monotonic() + max(EVERY_S, SHARE * taken)
            return self._last


def forecast(
    given: ForecastInput,
    *,
    replications: int = REPLICATIONS,
    seed: int = 0,
    seconds: float = SIMULATION_S,
) -> Forecast | None:
    """Simulate the rest of a sweep; None where there is too much to simulate.

    The same input and seed give the same forecast, where all replications fit into the time.
    Where nothing was measured and nothing reported, only the epochs mean something.

    Args:
        given: what is known of the sweep.
        replications: how often it is simulated.
        seed: of all draws.
        seconds: for how long to simulate at most, in seconds of this thread's work.
    """
    until = time.thread_time() + seconds
    if not given.reports and not given.epoch_s:  # nobody knows when hours are over
        none = {"gpu_hours": None, "cost": None, "wall_hours": None}
        budget = given.spec.budget.model_copy(update=none)
        spec = given.spec.model_copy(update={"budget": budget})
        given = replace(given, spec=spec, epoch_s=1.0)
    given = _looking_ahead(given)
    generator = np.random.default_rng(seed)
    model = ForecastModel(given, generator, replications)
    ends: list[_End] = []
    with contextlib.suppress(_TooMuchError):
        for draw in model.draws():
            ends.append(_Rest(given, draw, generator, until).run())
    if len(ends) < min(FEWEST, replications):
        return None
    widening = WIDENING if given.reports else 1.0
    reasons = Counter(end.reason for end in ends)
    return Forecast(
        epochs=_interval([end.epochs for end in ends], widening),
        held_s=_interval([end.held_s for end in ends], widening),
        wall_s=_interval([end.wall_s for end in ends], widening),
        ends_by={reason: count / len(ends) for reason, count in reasons.most_common()},
        reports=len(given.reports),
        driven_s=given.driven_s,
    )


def _looking_ahead(given: ForecastInput) -> ForecastInput:
    """Return the input with no more trials than a replication can come to."""
    budget = given.spec.budget
    trials = len(given.trials) + HORIZON
    if budget.trials <= trials:
        return given
    nearer = budget.model_copy(update={"trials": trials})
    spec = given.spec.model_copy(update={"budget": nearer})
    return replace(given, spec=spec, has_more_trials=True)


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
    marks += [(t.ended, -1) for t in trials if t.attempts and t.ended is not None]
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


class _TooMuchError(Exception):
    """A replication does not come to its end in the time."""


class _Rest:
    """Simulates once what a driver would do with the rest of the sweep.

    Its values are latent: lower is better, whatever the sweep's own objective is. Its clock begins
    at 0, and what was recorded happened then.
    """

    def __init__(
        self, given: ForecastInput, draw: Draw, generator: np.random.Generator, until: float
    ) -> None:
        self._until, self._events = until, 0
        self._given, self._draw, self._generator = given, draw, generator
        latent = given.spec.objective.model_copy(update={"mode": "min"})
        spec = given.spec.model_copy(update={"objective": latent})
        self._spec = _comparable(spec)
        self._hours = "cost" if spec.budget.is_limited_by_cost else "gpu_hours"
        """The limit that GPU-hours come to."""
        self._now = 0.0
        self._queue: list[tuple[float, int]] = []
        """Times at which trials end their epochs, each with its trial."""
        self._state = SweepState(self._spec)
        for event in _recorded(given, draw.recorded):
            self._apply(event)
        self._decider = Decider(self._state, lambda: self._now)

    def run(self) -> _End:
        """Run it to its end.

        Raises:
            _TooMuchError: the time is over first.
        """
        hours, driven_s = self._spec.budget.wall_hours, self._given.driven_s
        wall_left_s = math.inf if hours is None else hours * 3600 - driven_s
        reason = ""
        while not reason:
            self._fill_slots()
            if not self._queue:
                more = len(self._state.ended) < self._spec.budget.trials
                reason = self._hours if more else "trials"
                if not more and self._given.has_more_trials:
                    raise _TooMuchError
            elif self._queue[0][0] >= wall_left_s:
                reason, self._now = "wall_hours", max(0.0, wall_left_s)
            else:
                self._now, number = heapq.heappop(self._queue)
                self._end_epoch(number)
                reason = self._hours if self._decider.budget.spent else ""
        if self._queue:
            self._now += float(self._generator.uniform(0, HAND_OVER_S))
        for _, number in self._queue:
            self._hand_over(number)
        epochs = sum(trial.epoch for trial in self._state.trials)
        # The first trials build the stages, as many of them at once as there are slots.
        stages_s = self._given.stages_s
        wall_s = driven_s + self._now + stages_s / self._given.slots
        return _End(epochs, self._state.ledger.held_s + stages_s, wall_s, reason)

    def _fill_slots(self) -> None:
        while len(self._queue) < self._given.slots:
            trial = self._decider.open_trial()
            if trial is None:
                if not self._decider.may_ask():
                    return
                self._apply(self._decider.ask({}))
                trial = self._state.trials[-1]
            self._begin(trial.number)

    def _begin(self, number: int) -> None:
        self._apply(self._decider.begin_attempt(number))
        recorded = self._given.trials
        if number < len(recorded) and recorded[number].state == TrialState.RUNNING:
            # Some of the epoch under way is over; all of it is counted when it is reported.
            over_s = float(self._generator.random() * self._draw.epoch_s[number])
            self._place(number, after_s=-over_s, setup_s=0.0)
        else:
            setup_s = self._given.setup_s
            self._place(number, after_s=setup_s, setup_s=setup_s)

    def _place(self, number: int, *, after_s: float, setup_s: float) -> None:
        attempt = self._state.trials[number].attempt
        facts = {"setup_s": setup_s}
        self._apply(events.AttemptPlaced(self._now + after_s, number, attempt, facts))
        self._train(number, after_s=after_s)

    def _train(self, number: int, *, after_s: float = 0.0) -> None:
        seconds, jitter = self._draw.epoch_s[number], self._draw.jitter
        varied = seconds * math.exp(jitter * self._generator.normal() - jitter**2 / 2)
        end = max(self._now, self._now + after_s + varied)
        heapq.heappush(self._queue, (end, number))

    def _end_epoch(self, number: int) -> None:
        trial = self._state.trials[number]
        epoch, seconds = trial.epoch + 1, self._now - (trial.holding.since or 0.0)
        if epoch == 1 and self._generator.random() < self._draw.failing:
            self._apply(self._decider.fail(number, ""))
            return
        noise = self._draw.crossing * self._generator.normal()
        value = float(self._draw.worths[number]) + noise
        metrics = {self._spec.objective.metric: value}
        self._apply(
            self._decider.report(
                number, epoch=epoch, metrics=metrics, seconds=seconds, checkpoint=None
            )
        )
        if trial.decision != Decision.CONTINUE:
            self._apply(self._decider.finish(number))
            return
        aside = self._decider.set_aside(number)
        if aside is None:
            self._train(number)
        else:
            self._apply(aside)

    def _hand_over(self, number: int) -> None:
        trial = self._state.trials[number]
        saved = CheckpointRecord(trial.attempt, trial.epoch, "", "", 0, partial_s=0.0)
        self._apply(self._decider.hand_over(number, saved))

    def _apply(self, event: events.Event) -> None:
        self._events += 1
        if self._events % LOOKS == 0 and time.thread_time() > self._until:
            raise _TooMuchError
        self._state.apply(event)


def _comparable(spec: SweepSpec) -> SweepSpec:
    """Return a sweep in which trials are cut at its rungs, also where they would be paused.

    What a model of curves would decide cannot be simulated: the trials to come have no parameters.
    """
    pruner = spec.pruner
    if pruner.name not in ("asha", "none"):
        pruner = pruner.model_copy(update={"name": "asha"})
    sampler = spec.sampler.model_copy(update={"name": "random"})
    # The values of trials are latent, so nobody knows when one is good enough.
    budget = spec.budget.model_copy(update={"target": None, "patience": None})
    changes = {"pruner": pruner, "sampler": sampler, "budget": budget}
    return spec.model_copy(update=changes)


def _recorded(
    given: ForecastInput, latent: Mapping[tuple[int, int], float]
) -> Iterator[events.Event]:
    """Yield what was recorded of a sweep as events at time 0, with latent values.

    Args:
        given: what was recorded.
        latent: the values by trial and epoch, where trials are compared.
    """
    for trial in given.trials:
        yield events.TrialAsked(0.0, trial.number, {}, 0)
        for attempt in range(1, trial.attempts + 1):
            yield events.AttemptBegun(0.0, trial.number, attempt, from_epoch=0)
        facts = {"setup_s": trial.held_s}  # all that its attempts have held
        yield events.AttemptPlaced(0.0, trial.number, trial.attempts, facts)
    last: dict[int, float] = {}
    for number, epoch, value, seconds, _ in given.reports:
        last[number] = latent.get((number, epoch), last.get(number, 0.0))
        yield events.Reported(
            at=0.0,
            trial=number,
            attempt=0,
            epoch=epoch,
            value=None if value is None else last[number],
            decision=Decision.CONTINUE,
            seconds=seconds,
            is_audited=given.audited.get(number) == epoch,
        )
    for trial in given.trials:
        if trial.state.is_end:
            value = last.get(trial.number)
            yield events.TrialEnded(0.0, trial.number, trial.state, trial.epochs, value, "")
    yield events.DriverOpened(0.0, given.spec.budget.model_dump(), {})
