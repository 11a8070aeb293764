"""How a sweep ended is said in a line and in the exit code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import typer
from support.simulated_driver import SimulatedTrial, open_unsynced, simulated_start

from posetune.cli.commands.sweeps.sweep import _say_how_it_ended
from posetune.cli.screen import console
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
