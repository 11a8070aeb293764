"""Importance and ranking compare trials at one epoch, and say on how many they rest."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from support.simulated_driver import SimulatedTrial, drive, open_unsynced
from support.simulated_driver import simulated_start as sweep_start

from posetune.report.findings.importance import param_importance
from posetune.report.sweep_json import as_json
from posetune.report.tables import sweep_tables
from posetune.study.driving.sweep import SweepRun
from posetune.study.reading import read_sweep
from posetune.study.records import Report
from posetune.study.search.rungs import Standing, compared_epochs
from posetune.study.states import SweepStatus, TrialState
from posetune.study.view import SweepView, TrialView


def state_of(values: list[float | None], *, is_open: bool) -> TrialState:
    if is_open:
        return TrialState.RUNNING
    return TrialState.COMPLETE if len(values) == 9 else TrialState.PRUNED


def standing_of(values: list[float | None], compared: set[int]) -> Standing | None:
    """Where a trial stands that reported these values."""
    found = [(e, v) for e, v in enumerate(values, 1) if e in compared and v is not None]
    return found[-1] if found else None


def view_of(
    values: dict[int, list[float | None]],
    open_: frozenset[int] = frozenset(),
    mode: str = "min",
    grace_epochs: int = 1,
) -> SweepView:
    """A sweep of trials with these values after each epoch; x and depth are drawn at random."""
    generator = random.Random(0)
    pruner = {"max_epochs": 9, "grace_epochs": grace_epochs}
    spec = sweep_start(
        objective={"metric": "loss", "mode": mode, "select": "last"}, pruner=pruner
    ).spec
    compared = compared_epochs(spec.pruner)
    trials = tuple(
        TrialView(
            number=number,
            state=state_of(found, is_open=number in open_),
            params={"x": 10 ** generator.uniform(-2, 1), "depth": generator.randrange(2, 17, 2)},
            epochs=len(found),
            value=found[-1],
            seconds=1.0,
            attempts=1,
            seed=0,
            reason="",
            mlflow_run_id=None,
            standing=standing_of(found, compared),
        )
        for number, found in values.items()
    )
    reports = tuple(
        Report(number, epoch, value)
        for number, found in values.items()
        for epoch, value in enumerate(found, 1)
    )
    return SweepView(
        id=1,
        name="s",
        state=SweepStatus.RUNNING,
        spec=spec,
        source="",
        store="",
        store_digest="",
        provenance={},
        started=0.0,
        trials=trials,
        baselines={},
        reports=reports,
    )


def judged_by(view: SweepView, name: str, epochs: dict[int, int]) -> SweepView:
    """The same sweep with each trial's value set by one parameter alone, after any epoch."""
    values = {t.number: abs(float(t.params[name]) - 6) for t in view.trials}
    reports = tuple(Report(n, e, v) for n, v in values.items() for e in range(1, epochs[n] + 1))
    return replace(view, reports=reports)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "other"), [("x", "depth"), ("depth", "x")])
def test_the_parameter_that_decides_has_the_largest_share(name: str, other: str) -> None:
    epochs = {number: 9 if number < 5 else 3 if number < 40 else 1 for number in range(60)}
    view = judged_by(view_of({n: [0.0] * e for n, e in epochs.items()}), name, epochs)
    found = param_importance(view)
    assert (found.epoch, found.trials) == (3, 40)
    assert found.params[name] > 0.7 > found.params[other]
    assert sum(found.params.values()) == pytest.approx(1)
    assert list(found.params) == [name, other]


def test_only_values_of_the_same_epoch_are_compared() -> None:
    """Trials that went on are far better at their end; that must not look like importance."""
    generator = random.Random(1)
    values: dict[int, list[float | None]] = {
        n: [generator.random(), 0.0, *([-100.0] * 7 if n % 7 == 0 else [])] for n in range(30)
    }
    view = view_of(values)
    at_the_rung = view_of({n: found[:1] for n, found in values.items()})
    found = param_importance(view)
    assert (found.epoch, found.trials) == (1, 30)
    assert found.params == param_importance(at_the_rung).params


def test_too_few_trials_give_a_reason_instead() -> None:
    few = param_importance(view_of({n: [float(n)] for n in range(9)}))
    assert (few.params, few.reason) == ({}, "9 trials have reached a rung, 10 are needed")
    equal = param_importance(view_of({n: [1.0] for n in range(12)}))
    assert "all have the same value after 1 epochs" in equal.reason
    assert as_json(view_of({0: [1.0]}))["importance"] is None


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_trial_under_way_is_ranked_by_the_rung_it_passed(mode: str) -> None:
    sign = 1.0 if mode == "min" else -1.0
    values: dict[int, list[float | None]] = {
        0: [5, 4, 4],  # cut at the second rung
        1: [9, 8, 3, 2.9, 2.8],  # under way, better there
        2: [9, 8, 3.5, 1.0],  # under way, better now but not there
        3: [1, 0.5],  # under way, between the rungs
        4: [2],  # cut at the first rung
        5: [None],
    }
    signed = {n: [None if v is None else sign * v for v in f] for n, f in values.items()}
    view = view_of(signed, frozenset({1, 2, 3}), mode)
    assert [t.number for t in view.ranked] == [1, 2, 0, 3, 4]
    assert view.leaders == (3, 3)
    assert as_json(view)["best_among"] == {"epoch": 3, "trials": 3}


def test_before_the_first_rung_the_furthest_comes_first() -> None:
    values: dict[int, list[float | None]] = {0: [1.0], 1: [3.0, 3.0], 2: [2.0, 2.0]}
    view = view_of(values, frozenset(values), grace_epochs=3)
    assert [t.number for t in view.ranked] == [2, 1, 0]
    assert view.leaders == (0, 0)
    assert as_json(view)["best_among"] is None


def test_the_tables_say_what_ranking_and_importance_rest_on(tmp_path: Path) -> None:
    database = open_unsynced(tmp_path / "study.db")
    objective = {"metric": "loss", "mode": "min", "select": "last"}
    drive(database, sweep_start(budget={"trials": 20}, objective=objective))
    view = read_sweep(database, "s")
    out = Console(file=StringIO(), width=120)
    out.print(sweep_tables(view))
    printed = out.file.getvalue()  # type: ignore[attr-defined]
    epoch, leaders = view.leaders
    assert epoch == 9
    assert f"the first {leaders} are ranked by their values after 9 epochs" in printed
    found = as_json(view)["importance"]
    assert f"importance, over {found['trials']} trials after {found['epoch']} epoch" in printed
    json.dumps(as_json(view))
    assert set(found["params"]) == {"x", "depth"}


@pytest.mark.slow
def test_a_sweep_without_importance_is_shown_without_optuna(tmp_path: Path) -> None:
    database = open_unsynced(tmp_path / "study.db")
    run = SweepRun(database, sweep_start())
    trial = run.next_trial()
    assert trial is not None
    SimulatedTrial(run, trial.number).step()
    run.lease.release()
    code = (
        "import sys; from posetune.study.tables.database import open_database; "
        "from posetune.study.reading import read_sweep; "
        "from posetune.report.sweep_json import as_json; "
        "from posetune.report.tables import sweep_tables; "
        f"view = read_sweep(open_database('sqlite:///{tmp_path / 'study.db'}'), 's'); "
        "as_json(view); sweep_tables(view); assert 'optuna' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
