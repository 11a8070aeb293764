"""What is said of a search: why trials are paused, and what looks wrong with it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.simulated_driver import SimulatedTrial, open_unsynced, simulated_start

from posetune.report.findings.search_notes import health_lines, pause_lines
from posetune.study.driving.sweep import SweepRun
from posetune.study.reading import read_sweep
from posetune.study.search.rungs import Decision
from posetune.study.tables.database import Database
from posetune.study.view import SweepView

FULL = {"name": "none", "max_epochs": 4}


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Database]:
    opened = open_unsynced(tmp_path / "study.db")
    yield opened
    opened.close()


def told(study: Database, curves: list[list[float]], **changes: Any) -> SweepView:
    """A sweep whose trials report these values, one after the other."""
    content = {"sampler": {"name": "random"}, "budget": {"trials": len(curves)}, **changes}
    run = SweepRun(study, simulated_start(**content))
    for values in curves:
        trial = run.next_trial()
        assert trial is not None
        at_work, decision = SimulatedTrial(run, trial.number), Decision.CONTINUE
        for value in values:
            if decision == Decision.CONTINUE:
                decision = at_work.step({"loss": value})
        if run.trials[trial.number].state is None and decision == Decision.CONTINUE:
            run.fail(trial.number, "diverged")
    run.close("finished")
    return read_sweep(study, "s")


def test_a_sweep_in_which_most_trials_fail_says_so(study: Database) -> None:
    view = told(study, [[1.0], [1.0], [1.0], [4.0, 3.0, 2.0, 1.0]], pruner=FULL)
    assert "3 of 4 trials failed: their reasons say why" in health_lines(view)


@pytest.mark.parametrize(("crosses", "says"), [(True, True), (False, False)])
def test_a_first_rung_that_does_not_foretell_the_end_is_named(
    study: Database, crosses: bool, says: bool
) -> None:
    early = [float(i) for i in range(8)]
    curves = [[e, e, e, (-e if crosses else e)] for e in early]
    pruner = {"name": "asha", "max_epochs": 4, "grace_epochs": 1, "audit_share": 1.0}
    lines = [line for line in health_lines(told(study, curves, pruner=pruner)) if "rung" in line]
    assert bool(lines) == says
    if says:
        assert "over 8 complete trials" in lines[0]
        assert "-1.00" in lines[0]


def test_the_best_at_the_edge_of_a_range_is_named_with_the_range(study: Database) -> None:
    start = simulated_start(pruner=FULL, budget={"trials": 1})
    run = SweepRun(study, dataclasses.replace(start, defaults={"x": 9.9, "depth": 8}))
    trial = run.next_trial()
    assert trial is not None
    SimulatedTrial(run, 0).step()
    run.close("stopped")
    lines = health_lines(read_sweep(study, "s"))
    assert lines == ["the best trial has x 9.9, at the edge of [0.01, 10]: widen the range"]


@pytest.mark.parametrize(("second", "says"), [(1.4, True), (9.0, False)])
def test_a_lead_within_the_noise_between_seeds_is_named(
    study: Database, second: float, says: bool
) -> None:
    curves = [[1.0], [2.0], [second], [second + 1.0]]
    sampler = {"name": "random", "repeats": 2}
    pruner = {"name": "none", "max_epochs": 1}
    view = told(study, curves, sampler=sampler, pruner=pruner)
    lines = [line for line in health_lines(view) if "standard errors" in line]
    assert bool(lines) == says


def test_a_parameter_that_does_nothing_is_named(study: Database) -> None:
    """The value follows from x alone."""
    run = SweepRun(study, simulated_start(
        sampler={"name": "random"}, pruner={"name": "none", "max_epochs": 1},
        budget={"trials": 60},
    ))  # fmt: skip
    for _ in range(60):
        trial = run.next_trial()
        assert trial is not None
        SimulatedTrial(run, trial.number).step({"loss": abs(float(trial.params["x"]) - 0.7)})
    run.close("finished")
    lines = [line for line in health_lines(read_sweep(study, "s")) if "explains" in line]
    assert [line.partition(" explains")[0] for line in lines] == ["depth"]


def test_paused_trials_say_why_the_best_first(study: Database) -> None:
    run = SweepRun(study, simulated_start(
        search={"x": {"choice": [0.1, 0.7, 1.0, 3.0]}, "depth": {"int": [2, 16], "step": 2}},
        pruner={"name": "thaw", "max_epochs": 9},
    ))  # fmt: skip
    generator = random.Random(0)
    for _ in range(3):
        trial = run.next_trial()
        assert trial is not None
        SimulatedTrial(run, trial.number).step({"loss": generator.random()})
    run.close("stopped")
    view = read_sweep(study, "s")
    lines = pause_lines(view)
    assert len(lines) == 3
    assert view.best is not None
    assert lines[0] == (
        f"trial {view.best.number} paused after epoch 1: 4 trials begin before any goes on"
    )
