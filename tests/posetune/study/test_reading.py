"""What is read of a sweep that others have written: the same from fewer rows."""

from __future__ import annotations

import dataclasses
import tracemalloc

import pytest
from support.simulated_driver import simulated_start

from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.reading import read_sweep
from posetune.study.records import CheckpointRecord
from posetune.study.tables.database import Database

EPOCHS = 100
EPOCH_S = 300.0


class Clock:
    """What a driver takes for the time."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def sweep_start(name: str = "s") -> SweepStart:
    plain = simulated_start(
        pruner={"name": "none", "max_epochs": EPOCHS},
        resources={"gpu": 1},
        budget={"trials": 9},
        keep={"best": 1},
    )
    return dataclasses.replace(plain, name=name)


def train(run: SweepRun, clock: Clock, *, epochs: int, within: bool = False) -> None:
    """An attempt of the next trial, with a checkpoint at each report; perhaps handed over."""
    trial = run.next_trial()
    assert trial is not None
    attempt = run.begin_attempt(trial.number)
    run.started(trial.number, attempt.number, facts={"setup_s": 10.0})
    for epoch in range(trial.epoch + 1, trial.epoch + epochs + 1):
        clock.now += EPOCH_S
        saved = CheckpointRecord(attempt.number, epoch, f"{trial.number}-{epoch}", "d" * 64, 1)
        report = {"metrics": {"loss": 1 / epoch}, "seconds": EPOCH_S, "checkpoint": saved}
        run.report(trial.number, attempt.number, epoch=epoch, **report)
    if within:
        clock.now += 5.0
        saved = dataclasses.replace(saved, folder="within", partial_s=5.0)
        run.hand_over(trial.number, attempt.number, checkpoint=saved)


def test_a_trial_is_shown_with_the_newest_checkpoint_that_is_kept(database: Database) -> None:
    clock = Clock()
    for name, within in (("s", True), ("t", False)):
        run = SweepRun(database, sweep_start(name), clock=clock)
        train(run, clock, epochs=3, within=within)
        train(run, clock, epochs=2)
        run.begin_attempt(0)
        released = [saved.epoch for saved in run.release_checkpoints(0)]
        assert released == ([1, 2] if within else [1])
        assert run.release_checkpoints(0) == []
        run.fail(1, "diverged")
        run.lease.release()
        handed_over, failed = read_sweep(database, name).trials
        assert handed_over.checkpoint is not None
        assert handed_over.checkpoint.folder == ("within" if within else "0-3")
        assert run.trials[0].crashes == (not within), "one that handed over has not crashed"
        assert failed.checkpoint is None, "those of a failed trial that is not the best are deleted"


@pytest.mark.parametrize("behind_s", [-3.0, 3.0])
def test_a_driver_whose_clock_is_behind_forgets_no_hours(
    database: Database, behind_s: float
) -> None:
    clock = Clock()
    run = SweepRun(database, sweep_start(), clock=clock)
    train(run, clock, epochs=24)
    run.close("the next driver runs elsewhere")
    clock.now -= behind_s
    SweepRun(database, sweep_start(), clock=clock).lease.release()
    held_s = read_sweep(database, "s").trials[0].held_s
    assert held_s == 10 + 24 * EPOCH_S


def test_the_time_of_drivers_adds_up(database: Database) -> None:
    clock = Clock()
    for _ in range(2):  # the second starts when the first has stopped
        run = SweepRun(database, sweep_start(), clock=clock)
        train(run, clock, epochs=4)
        clock.now += 50
        run.close("stopped")
    clock.now += 10_000
    run = SweepRun(database, sweep_start(), clock=clock)
    train(run, clock, epochs=1)
    run.lease.release()
    assert read_sweep(database, "s").driven_s == 2 * (4 * EPOCH_S + 50) + EPOCH_S


@pytest.mark.slow
def test_reading_a_sweep_takes_little_more_than_it_returns(database: Database) -> None:
    clock = Clock()
    run = SweepRun(database, sweep_start(), clock=clock)
    for _ in range(9):
        train(run, clock, epochs=EPOCHS)
    run.lease.release()
    read_sweep(database, "s")
    tracemalloc.start()
    view = read_sweep(database, "s")
    returned, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(view.reports) == 9 * EPOCHS
    assert (peak - returned) / len(view.reports) < 150, "bytes a report that are thrown away"
