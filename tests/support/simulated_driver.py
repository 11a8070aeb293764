"""Drives a study without Ray and without training, for tests and benchmarks of the study itself.

It calls `SweepRun` as the driver of a real sweep does, in the same order; a trial's value is a
function of its parameters and the epoch.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import event

from posetune.spec.parameters import Scalar
from posetune.spec.sweep import SweepSpec
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.reading import list_sweeps
from posetune.study.records import CheckpointRecord
from posetune.study.search.rungs import Decision
from posetune.study.tables import journal
from posetune.study.tables.database import Database, open_database
from posetune.study.view import SweepView

__all__ = [
    "SimulatedTrial",
    "drive",
    "fill",
    "happened",
    "open_unsynced",
    "outcome",
    "simulated_loss",
    "simulated_start",
]

E = TypeVar("E")

SPEC: dict[str, Any] = {
    "trainable": "posetune.testing.toy:Toy",
    "objective": {"metric": "loss", "mode": "min"},
    "search": {"x": {"float": [0.01, 10], "log": True}, "depth": {"int": [2, 16], "step": 2}},
    "pruner": {"max_epochs": 9},
    "budget": {"trials": 14},
}


def simulated_start(**changes: Any) -> SweepStart:
    """Return what a small sweep `s` is started with; `changes` replace keys of its sweep file."""
    spec = SweepSpec.model_validate({**SPEC, **changes})
    return SweepStart("s", spec, "text", "store", "d1", {}, {"x": 1.0, "depth": 8})


def simulated_loss(params: Mapping[str, Scalar], epoch: int) -> float:
    """Return a value that falls with the epochs and is best at x = 0.7, depth = 6."""
    x, depth = float(params["x"]), float(params["depth"])
    return abs(x - 0.7) + abs(depth - 6) / 4 + 1 / epoch


class SimulatedTrial:
    """A trial under way, as its worker and the scheduler see it."""

    def __init__(
        self, run: SweepRun, number: int, *, broken: bool = False, noise: float = 0.0
    ) -> None:
        """Begin an attempt.

        Args:
            run: the sweep.
            number: the trial.
            broken: whether the newest checkpoint turns out to be broken.
            noise: standard deviation of its values between seeds.
        """
        self.run, self.number = run, number
        attempt = run.begin_attempt(number)
        self.attempt, self.params = attempt.number, attempt.params
        run.stage_used(number, "flow", key=str(attempt.params["depth"]), trained=True)
        run.baselines({"mean": 5.0})
        whole = attempt.checkpoints[1:] if broken else attempt.checkpoints
        facts = {"node": "here", "device": "cpu", "threads": 1}
        begun_at = whole[0].folder if whole else ""
        run.started(number, self.attempt, facts={**facts, "checkpoint": begun_at})
        self.epoch = whole[0].epoch if whole else 0
        self.luck = noise * random.Random(attempt.seed).gauss(0, 1)

    def hand_over(self) -> None:
        """Save in the middle of the next epoch, as a worker does that is taken away."""
        record = self._checkpoint(self.epoch, partial_s=0.5)
        self.run.hand_over(self.number, self.attempt, checkpoint=record)
        self.run.release_checkpoints(self.number)

    def step(self, metrics: Mapping[str, float] | None = None) -> Decision:
        """Train an epoch, report it, and end the trial if that is decided."""
        self.epoch += 1
        decision = self.run.report(
            self.number,
            self.attempt,
            epoch=self.epoch,
            metrics=metrics or {"loss": simulated_loss(self.params, self.epoch) + self.luck},
            seconds=1.0,
            checkpoint=self._checkpoint(self.epoch),
        )
        if decision.is_end:
            self.run.finish(self.number)
        elif self.run.trials[self.number].stop_after is not None:
            self.run.goes_on(self.number)
        self.run.release_checkpoints(self.number)
        return decision

    def _checkpoint(self, epoch: int, partial_s: float | None = None) -> CheckpointRecord:
        folder = f"checkpoints/s/{self.number}/{epoch}" + ("" if partial_s is None else "-partial")
        return CheckpointRecord(self.attempt, epoch, folder, "d" * 64, 1, partial_s)


def drive(
    database: Database,
    sweep_start: SweepStart,
    *,
    slots: int = 1,
    order: random.Random | None = None,
    broken: bool = False,
    noise: float = 0.0,
    between: Callable[[SweepRun], None] = lambda run: None,
) -> None:
    """Open a sweep, run what is left of it, and give its lease back.

    Args:
        database: the study.
        sweep_start: the sweep.
        slots: trials at a time.
        order: draws which of them reports next.
        broken: whether the newest checkpoint of each continued trial turns out to be broken.
        noise: standard deviation of a trial's values between seeds.
        between: is called between any two steps, as where a real driver takes up requests.

    Some workers are taken away within an epoch, and hand over. So do all once the sweep is held:
    then the driver waits, and `between` has to release it.
    """
    order = order or random.Random(0)
    run = SweepRun(database, sweep_start)
    running: list[SimulatedTrial] = []
    try:
        while True:
            if run.spent:
                _let_go(running)
                break
            while len(running) < slots and not run.held and (trial := run.next_trial()) is not None:
                running.append(SimulatedTrial(run, trial.number, broken=broken, noise=noise))
            between(run)
            if run.held:
                _let_go(running)
                continue
            running = [trial for trial in running if run.trials[trial.number].state is None]
            if not running and run.may_start:
                continue
            if not running:
                break
            trial_under_way = order.choice(running)
            if trial_under_way.attempt == 1 and trial_under_way.epoch == trial_under_way.number % 5:
                trial_under_way.hand_over()
                running.remove(trial_under_way)
                again = SimulatedTrial(run, trial_under_way.number, broken=broken, noise=noise)
                running.append(again)
                continue
            decision = trial_under_way.step()
            has_ended = run.trials[trial_under_way.number].state is not None
            if decision != Decision.CONTINUE or has_ended:
                running.remove(trial_under_way)
    finally:
        run.lease.release()


def _let_go(running: list[SimulatedTrial]) -> None:
    """Let every trial at work save and give its slot back, because the sweep is held."""
    for trial in running:
        if trial.run.trials[trial.number].state is None:
            trial.hand_over()
    running.clear()


def fill(run: SweepRun, trials: int, generator: random.Random) -> None:
    """Run trials one after another until there are `trials`, quickly and as a search does.

    A sampler that learns sends each trial further than most before it; here the values improve
    with the trial's number, whatever its parameters. Each report has 30 metrics.
    """
    metrics = {f"train/metric_{i}": 1.0 for i in range(29)}
    objective = run.spec.objective.metric
    while len(run.trials) < trials and (trial := run.next_trial()) is not None:
        quality = generator.gauss(0, 1) - 0.4 * math.log(1 + trial.number)
        under_way, decision = SimulatedTrial(run, trial.number), Decision.CONTINUE
        while decision == Decision.CONTINUE:
            value = 20 + quality + 10 / (under_way.epoch + 1)
            decision = under_way.step({**metrics, objective: value})


def happened(database: Database, kind: type[E], name: str | None = None) -> list[E]:
    """Return the events of a kind in order: of one sweep, or of all, one after the other."""
    found: list[E] = []
    with database.reading() as connection:
        for view in reversed(list_sweeps(database)):
            if name in (None, view.name):
                events = journal.read_events(connection, view.id)
                found += [event for event in events if isinstance(event, kind)]
    return found


def outcome(database: Database, name: str | None = None) -> str:
    """Return everything that must not depend on kills, as text: all but attempts and times.

    Args:
        database: the study.
        name: of one of its sweeps; all of them without.
    """
    views = [view for view in list_sweeps(database) if name in (None, view.name)]
    return json.dumps([_outcome(view) for view in views], indent=1)


def _outcome(view: SweepView) -> list[list[Any]]:
    trials = [
        [t.number, t.params, t.seed, t.state, t.epochs, t.value, t.reason, sorted(t.stages.items())]
        for t in view.trials
    ]
    reports = [[r.trial, r.epoch, r.value, r.decision] for r in view.reports]
    return [trials, reports]


def open_unsynced(file: Path) -> Database:
    """Open a SQLite study that need not survive a power cut: quicker, otherwise the same."""
    opened = open_database(f"sqlite:///{file}")
    event.listen(opened.engine, "connect", lambda c, _: c.execute("PRAGMA synchronous=OFF"))
    opened.engine.dispose()  # the connection made so far has the default
    return opened
