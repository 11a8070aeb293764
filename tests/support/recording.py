"""Records sweeps of made-up objectives at full speed, through the real study.

Sampler, rungs, budget and events are those of any sweep; only training is replaced: a trial's
learning curve and the seconds of its epochs come from a `World`, or are looked up (`curves`), and
the clock jumps from event to event. So a sweep of days is recorded in a second, and can be read as
any other.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from posetune.spec.parameters import Scalar
from posetune.spec.sweep import SweepSpec
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.reading import read_sweep
from posetune.study.records import CheckpointRecord
from posetune.study.search.rungs import Decision
from posetune.study.tables.database import Database
from posetune.study.view import SweepView

__all__ = [
    "Behaviour",
    "RecordedStep",
    "Recording",
    "World",
    "draw_start",
    "draw_world",
    "record",
    "replay",
]

HALVES = 0.5
"""Of an epoch: when a worker dies, or a trial is taken away."""


class Behaviour(Protocol):
    """How the trials of a sweep behave: a `World`, or what was recorded."""

    @property
    def seed(self) -> int:
        """Draws what is left to chance."""

    @property
    def setup_s(self) -> float:
        """Seconds from the beginning of an attempt to its first epoch."""

    @property
    def failing(self) -> float:
        """Share of the trials that fail in their first epoch."""

    @property
    def dying(self) -> float:
        """Share of the epochs in which the worker dies."""

    def value(self, params: Mapping[str, Scalar], trial: int, epoch: int) -> float:
        """Return a trial's value after an epoch, the same again if it is trained again.

        Not a number: the trial fails in that epoch.
        """

    def seconds(self, params: Mapping[str, Scalar], generator: np.random.Generator) -> float:
        """Draw the length of an epoch."""


@dataclass(frozen=True)
class World:
    """How the trials of a made-up sweep behave.

    A trial's value after epoch e is `worth` + `fall` exp(-rate e) + noise, where its worth grows
    with the distance of its parameters from an optimum. With `speed` the rate depends on a
    parameter, and curves cross.
    """

    seed: int
    optimum: Mapping[str, float]
    """Where each parameter is best, in [0, 1] of its range."""
    weight: Mapping[str, float]
    fall: float
    rate: float
    speed: float
    noise: float
    epoch_s: float
    """Mean seconds of an epoch."""
    epoch_s_slope: float
    """How strongly the first parameter changes them, in logarithms over its range."""
    jitter: float
    """How much epochs of one trial differ in length, in logarithms."""
    setup_s: float
    """Seconds from the beginning of an attempt to its first epoch."""
    failing: float = 0.0
    """Share of the trials that fail in their first epoch."""
    dying: float = 0.0
    """Share of the epochs in which the worker dies."""

    def value(self, params: Mapping[str, Scalar], trial: int, epoch: int) -> float:
        """Return a trial's value after an epoch; again the same if it is trained again."""
        distance = {name: abs(float(params[name]) - best) for name, best in self.optimum.items()}
        worth = float(sum(self.weight[name] * d**1.5 for name, d in distance.items()))
        first = float(next(iter(params.values())))
        rate = self.rate * math.exp(self.speed * (first - 0.5))
        noise = float(np.random.default_rng((self.seed, trial, epoch)).normal())
        return worth + self.fall * math.exp(-rate * epoch) + self.noise * noise

    def seconds(self, params: Mapping[str, Scalar], generator: np.random.Generator) -> float:
        """Draw the length of an epoch."""
        first = float(next(iter(params.values())))
        spread = self.epoch_s_slope * (first - 0.5) + self.jitter * generator.normal()
        return self.epoch_s * math.exp(spread)


def draw_start(generator: np.random.Generator, **changes: Any) -> SweepStart:
    """Draw a sweep file: its space, sizes, pruner and sampler; `changes` replace its keys."""
    dimensions = int(generator.integers(1, 7))
    factor = int(generator.choice([2, 3, 4]))
    spec: dict[str, Any] = {
        "trainable": "posetune.testing.toy:Toy",
        "objective": {"metric": "loss", "mode": "min"},
        "search": {f"p{i}": {"float": [0.0, 1.0]} for i in range(dimensions)},
        "sampler": {
            "name": "tpe" if generator.random() < 0.7 else "random",
            "seed": int(generator.integers(2**31)),
        },
        "pruner": {
            "max_epochs": int(generator.choice([9, 16, 27])),
            "grace_epochs": int(generator.choice([1, 1, 2, 3])),
            "reduction_factor": factor,
        },
        "resources": {"cpu": 1, "gpu": 0.5},
        "budget": {"trials": int(np.exp(generator.uniform(math.log(10), math.log(60))))},
        **changes,
    }
    defaults = {name: 0.5 for name in spec["search"]}
    return SweepStart("s", SweepSpec.model_validate(spec), "text", "store", "d1", {}, defaults)


def draw_world(spec: SweepSpec, generator: np.random.Generator, **changes: Any) -> World:
    """Draw how the trials of a sweep behave; `changes` replace fields."""
    weight = generator.lognormal(0, 1, len(spec.search))
    world = World(
        seed=int(generator.integers(2**31)),
        optimum={name: generator.uniform(0.1, 0.9) for name in spec.search},
        weight=dict(zip(spec.search, weight / weight.sum(), strict=True)),
        fall=generator.uniform(0.2, 2.0),
        rate=generator.uniform(0.5, 3.0) / spec.pruner.max_epochs,
        speed=float(generator.choice([0.0, 0.0, 1.0])),
        noise=float(generator.choice([0.0, 0.01, 0.03])),
        epoch_s=math.exp(generator.uniform(math.log(5), math.log(600))),
        epoch_s_slope=float(generator.choice([0.0, 0.5, 1.0])),
        jitter=generator.uniform(0.02, 0.2),
        setup_s=generator.uniform(1, 20),
        failing=float(generator.choice([0.0, 0.0, 0.05])),
    )
    return World(**{**vars(world), **changes})


@dataclass
class Recording:
    """What happened, as nobody but the maker of the world knows it."""

    held: list[tuple[int, float, float]] = field(default_factory=list)
    """For each attempt its trial and when it began and ended to hold its resources."""
    reports: list[tuple[int, float]] = field(default_factory=list)
    """For each report that was committed its trial, and when."""
    now: float = 0.0

    def held_s(self, until: float = math.inf) -> float:
        """For how long resources were held up to a time."""
        return sum(max(0.0, min(end, until) - begin) for _, begin, end in self.held)


class _Driver:
    """Drives one sweep, as execution does, through events in the order of their time."""

    def __init__(
        self, run: SweepRun, world: Behaviour, recording: Recording, generator: np.random.Generator
    ) -> None:
        self.run, self.world, self.recording, self.generator = run, world, recording, generator
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.at_work: dict[int, tuple[int, float]] = {}
        """The attempt of each trial at work, and since when it holds its resources."""

    def later(self, delay: float, action: Callable[[], None]) -> None:
        """Let something happen after some seconds."""
        time = self.recording.now + delay
        heapq.heappush(self.queue, (time, int(self.generator.integers(2**31)), action))

    def start(self, number: int) -> None:
        """Begin an attempt of a trial."""
        attempt = self.run.begin_attempt(number)
        self.at_work[number] = attempt.number, self.recording.now
        whole = [c for c in attempt.checkpoints if c.partial_s is None]
        if whole and attempt.crashes and self.generator.random() < 0.3:
            whole = whole[1:]  # the newest turns out broken
        epoch = whole[0].epoch if whole else 0
        setup_s = self.world.setup_s * float(self.generator.uniform(0.5, 1.5))

        def stand() -> None:
            facts = {"node": "here", "device": "cpu", "threads": 1, "setup_s": setup_s}
            self.run.started(number, attempt.number, facts=facts)
            self.train(number, epoch + 1)

        self.later(setup_s, stand)

    def train(self, number: int, epoch: int) -> None:
        """Train an epoch."""
        seconds = self.world.seconds(self.run.trials[number].params, self.generator)
        if epoch == 1 and self.generator.random() < self.world.failing:
            self.later(seconds * HALVES, lambda: self.fail(number))
        elif self.generator.random() < self.world.dying:
            self.later(seconds * HALVES, lambda: self.die(number))
        else:
            self.later(seconds, lambda: self.report(number, epoch, seconds))

    def fail(self, number: int) -> None:
        """The trial fails."""
        self.run.fail(number, "diverged")
        self.end(number)

    def die(self, number: int) -> None:
        """The worker dies, and another begins."""
        self.end(number)
        self.start(number)

    def report(self, number: int, epoch: int, seconds: float) -> None:
        """Commit an epoch and go on as is decided."""
        attempt, _ = self.at_work[number]
        value = self.world.value(self.run.trials[number].params, number, epoch)
        if math.isnan(value):
            self.fail(number)
            return
        decision = self.run.report(
            number,
            attempt,
            epoch=epoch,
            metrics={self.run.spec.objective.metric: value},
            seconds=seconds,
            checkpoint=CheckpointRecord(attempt, epoch, f"{number}/{epoch}", "d", 1),
        )
        self.recording.reports.append((number, self.recording.now))
        if decision.is_end:
            self.run.finish(number)
        if decision == Decision.CONTINUE and self.run.goes_on(number):
            self.train(number, epoch + 1)
        else:
            self.end(number)
        self.run.release_checkpoints(number)

    def end(self, number: int) -> None:
        """The attempt lets its resources go."""
        _, begun = self.at_work.pop(number)
        self.recording.held.append((number, begun, self.recording.now))

    def stop(self) -> None:
        """The trials at work save where they are, which takes up to three seconds, and end."""
        self.recording.now += float(self.generator.uniform(0, 3))
        for number, (attempt, _) in list(self.at_work.items()):
            trial = self.run.trials[number]
            checkpoint = CheckpointRecord(attempt, trial.epoch, f"{number}/x", "d", 1, 0.5)
            self.run.hand_over(number, attempt, checkpoint=checkpoint)
            self.end(number)


def record(
    database: Database,
    sweep_start: SweepStart,
    world: Behaviour,
    *,
    slots: int = 1,
    recording: Recording | None = None,
    watch: Callable[[SweepRun, Recording], bool] = lambda run, recording: True,
) -> Recording:
    """Run what is left of a sweep on a clock of its own.

    Args:
        database: the study.
        sweep_start: the sweep.
        world: how its trials behave.
        slots: trials at a time.
        recording: what happened in earlier lives of the driver; it is continued.
        watch: called after each event; where it answers False the driver is killed.
    """
    recording = recording or Recording()
    recording.now += 1.0  # no two drivers start at the same time
    run = SweepRun(database, sweep_start, clock=lambda: recording.now)
    driver = _Driver(run, world, recording, np.random.default_rng((world.seed, len(run.trials))))
    while not run.spent:
        while len(driver.at_work) < slots and (trial := run.next_trial()) is not None:
            driver.start(trial.number)
        if not driver.queue:
            break
        if driver.queue[0][0] >= run.budget.ends_at:
            recording.now = run.budget.ends_at
            break
        recording.now, _, action = heapq.heappop(driver.queue)
        action()
        if not watch(run, recording):
            for number in list(driver.at_work):  # its workers go with it
                driver.end(number)
            run.lease.release()
            return recording
    if driver.at_work:
        driver.stop()
    run.close(run.spent or run.short or "finished")
    return recording


@dataclass(frozen=True)
class RecordedStep:
    """A recorded sweep, as it could be seen on its way."""

    slots: int
    epoch_s: float
    """What a measured step of the defaults said of an epoch, before the start."""
    setup_s: float
    snapshots: tuple[SweepView, ...]
    """After each of the shares of its trials that were asked for had ended."""
    end: SweepView


def replay(database: Database, seed: int, shares: Sequence[float], **changes: Any) -> RecordedStep:
    """Draw a sweep, record it, and look at it on its way.

    One in ten is not pruned, one in six has a limit of GPU-hours and one in six of hours by the
    clock, which may or may not be reached.

    Args:
        database: the study.
        seed: draws everything.
        shares: when to look, in shares of the budget's trials, ascending.
        changes: keys of the sweep file.
    """
    generator = np.random.default_rng(seed)
    sweep_start = draw_start(generator, **changes)
    world = draw_world(sweep_start.spec, generator)
    slots = int(generator.integers(1, 9))
    sweep_start = _with_limits(sweep_start, world, slots, generator)
    sweep_start = replace(sweep_start, name=f"replay{seed}")
    count = sweep_start.spec.budget.trials
    due = [math.ceil(share * count) for share in shares]
    snapshots: list[SweepView] = []

    def watch(run: SweepRun, _: Recording) -> bool:
        ended = sum(trial.state is not None for trial in run.trials)
        while len(snapshots) < len(due) and ended >= due[len(snapshots)]:
            snapshots.append(read_sweep(database, sweep_start.name))
        return True

    record(database, sweep_start, world, slots=slots, watch=watch)
    measured = world.seconds(sweep_start.defaults, generator)
    end = read_sweep(database, sweep_start.name)
    return RecordedStep(slots, measured, world.setup_s, tuple(snapshots), end)


def _with_limits(
    sweep_start: SweepStart, world: World, slots: int, generator: np.random.Generator
) -> SweepStart:
    spec = sweep_start.spec
    rough_s = spec.budget.trials * math.sqrt(spec.pruner.max_epochs) * world.epoch_s
    limits = {}
    pruner = {}
    if generator.random() < 1 / 6:
        limits["gpu_hours"] = generator.uniform(0.3, 3) * rough_s * spec.resources.gpu / 3600
    if generator.random() < 1 / 6:
        limits["wall_hours"] = generator.uniform(0.3, 3) * rough_s / slots / 3600
    if generator.random() < 0.1:
        pruner["name"] = "none"
    budget = spec.budget.model_copy(update=limits)
    pruning = spec.pruner.model_copy(update=pruner)
    spec = spec.model_copy(update={"budget": budget, "pruner": pruning})
    return replace(sweep_start, spec=spec)
