"""Acts on a sweep as tests ask for them, and a driver that takes them up when it is told to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from support.simulated_driver import SimulatedTrial, simulated_start

from posetune.study.acts.act import Act
from posetune.study.acts.asking import Asked, ask
from posetune.study.driving.sweep import SweepRun
from posetune.study.driving.sweep_start import SweepStart
from posetune.study.reading import read_sweep
from posetune.study.tables.database import Database
from posetune.study.view import TrialView

__all__ = ["ANA", "begin", "driver", "opening", "trial", "want", "without_pruner"]

ANA = "ana@laptop"


def want(database: Database, act: Act, by: str = ANA) -> Asked:
    """Ask for an act, and do not wait for the driver."""
    return ask(database, "s", act, by=by, wait_s=0.0)


def opening(**changes: object) -> SweepStart:
    return simulated_start(**{"budget": {"trials": 3}, "pruner": {"max_epochs": 4}, **changes})


def without_pruner(max_epochs: int = 4, trials: int = 3) -> SweepStart:
    pruner = {"name": "none", "max_epochs": max_epochs}
    return opening(pruner=pruner, budget={"trials": trials})


def trial(database: Database, number: int) -> TrialView:
    return read_sweep(database, "s").trials[number]


@contextlib.contextmanager
def driver(database: Database, start: SweepStart | None = None) -> Iterator[SweepRun]:
    """A driver at work, which takes requests up when the test says so."""
    run = SweepRun(database, start or opening())
    try:
        yield run
    finally:
        run.lease.release()


def begin(run: SweepRun) -> SimulatedTrial:
    """Begin an attempt at the next trial."""
    trial = run.next_trial()
    assert trial is not None
    return SimulatedTrial(run, trial.number)
