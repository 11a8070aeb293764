"""Every count of trials and epochs is shown beside what there can be, and not beside the file."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console, RenderableType
from support.simulated_driver import SimulatedTrial, drive, open_unsynced, simulated_start

from posetune.cli.commands.sweeps.sweep import _expected
from posetune.cli.live import SweepBoard
from posetune.execution.nodes.plan import plan_sweep
from posetune.home import Home
from posetune.promotion.model_card import _made
from posetune.promotion.request import Request
from posetune.report.comparison import Compared, compare
from posetune.report.pages.interactive import trial_facts
from posetune.report.pages.page import BestTrial, build_page
from posetune.report.sweep_json import as_json
from posetune.report.tables import budget_used, left_out, sweep_list, sweep_tables
from posetune.spec.sweep import SweepSpec
from posetune.storage import Folder
from posetune.study.acts.act import EditSweep, Enqueue, ExtendTrial
from posetune.study.acts.asking import ask
from posetune.study.acts.deciding import ActRefusedError
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.forecasting.forecast import Forecaster
from posetune.study.reading import read_sweep
from posetune.study.search.rungs import Decision
from posetune.study.tables.database import Database
from posetune.testing.toy import Toy
from posetune.tracking.content import describe_sweep, describe_trial

ANA = "ana@laptop"
POINTS = {"x": {"choice": [0.5, 1.0]}, "depth": {"int": [4, 8], "step": 2}}
"""A search space with six points."""


def finite_start(**changes: Any) -> SweepStart:
    """A sweep with a budget of 14 trials in a space of six points."""
    return simulated_start(**{"search": POINTS, **changes})


@pytest.fixture
def study(tmp_path: Path) -> Database:
    return open_unsynced(tmp_path / "study.db")


def words(shown: RenderableType) -> str:
    out = Console(file=StringIO(), width=160)
    out.print(shown)
    return " ".join(out.file.getvalue().split())  # type: ignore[attr-defined]


def test_a_finite_space_is_the_total_wherever_trials_are_counted(
    study: Database, tmp_path: Path
) -> None:
    run = SweepRun(study, finite_start(pruner={"name": "none", "max_epochs": 9}))
    assert "54 to 54 epochs; how long" in _expected(run)
    trial = run.next_trial()
    assert trial is not None
    under_way = SimulatedTrial(run, trial.number)
    while under_way.step() == Decision.CONTINUE:
        pass
    board = SweepBoard(run, Forecaster(), Folder(tmp_path))
    assert "1 of 6 trials ended" in board.summary()
    run.close("stopped")
    view = read_sweep(study, "s")
    home = Home.resolve(tmp_path / "home")
    assert "; 1 of 6 trials: 1 COMPLETE" in words(sweep_tables(view))
    assert budget_used(view).startswith("1 of 6 trials, ")
    assert " 1/6 " in words(sweep_list([view]))
    assert "1 of 6 trials: 1 complete." in describe_sweep(view, home)
    assert as_json(view)["most_trials"] == 6
    assert left_out(view) == "5 trials never started"


def test_a_finite_space_is_planned_by_its_points(toy_store: Path) -> None:
    content = {
        "trainable": "posetune.testing.toy:Toy",
        "objective": {"metric": "val/error_mm", "mode": "min"},
        "search": {"x": {"choice": [0.25, 0.5]}, "depth": {"choice": [2, 4]}},
        "pruner": {"name": "none", "max_epochs": 3},
        "budget": {"trials": 50},
    }
    found = plan_sweep(SweepSpec.model_validate(content), Toy, store=toy_store, store_digest="d")
    assert (found.trials, found.most_epochs) == (4, 12)
    assert found.epochs == (12, 12)


def test_an_enqueued_trial_is_refused_by_what_there_is_no_room_in(study: Database) -> None:
    drive(study, finite_start())
    with pytest.raises(ActRefusedError, match="the search space has room for 6 trials"):
        ask(study, "s", Enqueue(params={"x": 0.5, "depth": 4}), by=ANA)


@pytest.mark.parametrize(
    "change", [{"budget": {"trials": 3}}, {"search": {**POINTS, "x": {"choice": [0.5]}}}]
)
def test_an_edit_to_fewer_trials_than_there_are_leaves_none_to_start(
    study: Database, change: dict[str, Any]
) -> None:
    start = finite_start()
    drive(study, start)
    spec = SweepSpec.model_validate({**start.spec.canonical(), **change})
    ask(study, "s", EditSweep(spec=spec.canonical(), source="edited"), by=ANA)
    run = SweepRun(study, SweepStart("s", spec, "edited", "store", "d1", {}, start.defaults))
    assert (run.left, run.may_start, run.short) == (0, False, "")
    run.close(run.finished)
    view = read_sweep(study, "s")
    assert view.state == "COMPLETE"
    assert (view.most_trials, left_out(view)) == (6, "")
    if "budget" in change:
        assert not view.used_up, "the budget ended it, not the space"


def test_after_an_edit_only_points_within_the_new_bounds_were_tried(study: Database) -> None:
    search = {"x": {"float": [0.0, 4.0], "step": 0.5}, "depth": {"choice": [8]}}
    start = finite_start(search=search, budget={"trials": 4})
    drive(study, start)
    tried = {float(trial.params["x"]) for trial in read_sweep(study, "s").trials}
    first = max(tried)
    narrow = {**search, "x": {"float": [first, first + 1.5], "step": 0.5}}
    change = {"search": narrow, "budget": {"trials": 50}}
    spec = SweepSpec.model_validate({**start.spec.canonical(), **change})
    ask(study, "s", EditSweep(spec=spec.canonical(), source="edited"), by=ANA)
    edited = SweepStart("s", spec, "edited", "store", "d1", {}, start.defaults)
    run = SweepRun(study, edited)
    assert (run.state.most_trials, run.left, run.state.used_up) == (7, 3, "")
    run.lease.release()
    drive(study, edited)
    view = read_sweep(study, "s")
    found = [float(trial.params["x"]) for trial in view.trials[4:]]
    assert sorted(found) == [first + 0.5, first + 1.0, first + 1.5]
    assert (view.most_trials, view.state) == (7, "COMPLETE")
    assert view.used_up == "all 4 points of the search space were tried"


def test_an_extended_trial_has_its_own_last_epoch_as_the_total(
    study: Database, tmp_path: Path
) -> None:
    start = simulated_start(budget={"trials": 2}, pruner={"name": "none", "max_epochs": 9})
    drive(study, start)
    ask(study, "s", ExtendTrial(trial=0, epochs=12), by=ANA)
    run = SweepRun(study, start)
    trial = run.next_trial()
    assert trial is not None
    under_way = SimulatedTrial(run, trial.number)
    assert under_way.epoch == 9
    while under_way.step() == Decision.CONTINUE:
        pass
    board = SweepBoard(run, Forecaster(), Folder(tmp_path))
    assert [board.row(trial)[2] for trial in run.trials] == ["12/12", "9/9"]
    run.close("finished")
    view = read_sweep(study, "s")
    first = view.trials[0]
    home = Home.resolve(tmp_path / "home")
    columns = [Compared("s/0", view, first), Compared("s/1", view, view.trials[1])]
    assert compare(columns).outcome["epochs"] == ("12/12", "9/9")
    facts = {fact["number"]: fact["epochs"] for fact in trial_facts(view)}
    assert facts == {0: "12/12", 1: "9/9"}
    assert "trial 0, after 12 of 12 epochs" in describe_trial(view, first, home)
    candidate: Any = SimpleNamespace(view=view, trial=first, model=SimpleNamespace(epoch=12))
    assert _made(candidate, Request("s", "m"))["epoch"] == "12 of 12"
    best = view.best
    assert best is not None
    assert best.chosen is not None
    at = f"trial {best.number} after {best.chosen.epoch} of {best.last_epoch} epochs"
    page = build_page(view, BestTrial(first.number), commands=[])
    assert at in page
    assert "12/9" not in page
