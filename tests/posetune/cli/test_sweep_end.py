"""How a sweep ended is said in a line and in the exit code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import typer
from support.simulated_driver import SimulatedTrial, drive, open_unsynced, simulated_start

from posetune.cli.commands.sweeps.sweep import _say_how_it_ended
from posetune.cli.screen import console
from posetune.report.tables import next_steps
from posetune.study.driving.sweep import SweepRun
from posetune.study.faults import Fault, FaultKind
from posetune.study.reading import read_sweep
from posetune.study.tables.database import Database
from posetune.workflow.sweep import SweepEnd

TRACE = "Traceback (most recent call last):\n  [red]\nNameError: no such name"
NAME = Fault(FaultKind.CODE, "NameError", "model.py:3 in epoch", "NameError: no such name", TRACE)


@pytest.fixture
def study(tmp_path: Path) -> Database:
    return open_unsynced(tmp_path / "study.db")


def ended(run: SweepRun, study: Database, reason: str) -> SweepEnd:
    """Close a sweep and return how it ended, as `run_sweep` does."""
    failure, trace = run.broken, run.broken_trace
    run.close(reason)
    return SweepEnd(
        view=read_sweep(study, "s"),
        stopped_by_user=False,
        refused=False,
        failure=failure,
        trace=trace,
        is_tracked=True,
        tracking_error="",
    )


def said(end: SweepEnd) -> tuple[int, str]:
    """Return the exit code and what is printed."""
    code = 0
    with console.capture() as captured:
        try:
            _say_how_it_ended(end, None, tracking=True)
        except typer.Exit as left:
            code = left.exit_code
    return code, " ".join(captured.get().split())


def test_a_sweep_without_a_report_is_no_success_and_says_what_to_do(study: Database) -> None:
    run = SweepRun(study, simulated_start())
    assert run.next_trial() is not None
    end = ended(run, study, "the budget of 1 hours is spent")
    code, line = said(end)
    assert code == 1
    assert "there is no result, because no trial has reported loss" in line
    assert "raise the budget in the file" in line
    assert "posetune logs s --trial 0" in line
    assert "Next:" not in line
    assert said(replace(end, stopped_by_user=True))[0] == 130


def test_one_report_is_enough(study: Database) -> None:
    run = SweepRun(study, simulated_start())
    trial = run.next_trial()
    assert trial is not None
    SimulatedTrial(run, trial.number).step()
    assert said(ended(run, study, "the budget of 1 hours is spent"))[0] == 0


def test_where_trials_failed_alike_the_traceback_is_shown_once(study: Database) -> None:
    run = SweepRun(study, simulated_start())
    while (trial := run.next_trial()) is not None:
        run.attempt_failed(trial.number, SimulatedTrial(run, trial.number).attempt, NAME)
    code, line = said(ended(run, study, run.broken))
    assert code == 1
    assert line.count("Traceback") == line.count("[red]") == 1
    assert "the first 3 trials to fail have failed alike" in line
    assert line.endswith("mend the cause; then the same command again continues the sweep")


@pytest.mark.parametrize(
    ("mode", "target", "harder"), [("min", 3.0, "lower"), ("max", 1.0, "higher")]
)
def test_a_target_that_is_reached_is_no_budget_to_raise(
    study: Database, mode: str, target: float, harder: str
) -> None:
    start = simulated_start(
        objective={"metric": "loss", "mode": mode}, budget={"trials": 14, "target": target}
    )
    run = SweepRun(study, start)
    trial = run.next_trial()
    assert trial is not None
    SimulatedTrial(run, trial.number).step({"loss": 2.0})
    end = ended(run, study, run.spent)
    code, line = said(end)
    assert code == 0
    assert f"the target of {target:g} is reached by trial 0 with 2 after epoch 1. Next: " in line
    assert "posetune promote s --model MODEL" in line
    assert f"give budget.target a {harder} value in the file" in line
    assert "raise the budget" not in line
    assert next_steps(end.view) in line
    assert said(replace(end, stopped_by_user=True))[0] == 130


@pytest.mark.slow
def test_a_patience_that_is_over_is_no_budget_to_raise(study: Database) -> None:
    start = simulated_start(
        sampler={"name": "random", "repeats": 2},
        pruner={"name": "none", "max_epochs": 2},
        budget={"trials": 60, "patience": 2},
    )
    drive(study, start, noise=0.5)
    run = SweepRun(study, start)
    code, line = said(ended(run, study, run.spent))
    assert code == 0
    assert "the patience of 2 trials is over: the expected gain of what is left, " in line
    assert "is below the noise between seeds, " in line
    assert "Next: posetune promote s --model MODEL" in line
    assert "raise the budget" not in line


def test_after_its_target_was_made_harder_a_sweep_goes_on(study: Database) -> None:
    run = SweepRun(study, simulated_start(budget={"trials": 14, "target": 3.0}))
    trial = run.next_trial()
    assert trial is not None
    SimulatedTrial(run, trial.number).step({"loss": 2.0})
    run.close(run.spent)
    again = SweepRun(study, simulated_start(budget={"trials": 14, "target": 1.0}))
    assert not again.spent
    assert again.may_start
    again.lease.release()
