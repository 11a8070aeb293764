"""The end of a curve has a mark of its own for each way in which a trial may stand there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.simulated_driver import drive, open_unsynced, simulated_start

from posetune.report.pages import charts, interactive
from posetune.study.reading import read_sweep
from posetune.study.states import TrialState
from posetune.study.view import SweepView

ENDS = ["cut", "failed", "stopped", "paused"]


@pytest.fixture
def view(tmp_path: Path) -> SweepView:
    """A sweep with a trial in every state that has a mark."""
    database = open_unsynced(tmp_path / "study.db")
    drive(database, simulated_start(budget={"trials": 6}))
    view = read_sweep(database, "s")
    states = [TrialState.STOPPED, TrialState.PAUSED, TrialState.FAILED, TrialState.PRUNED]
    changed = [
        dataclasses.replace(trial, state=state)
        for trial, state in zip(view.trials, states, strict=False)
    ]
    return dataclasses.replace(view, trials=(*changed, *view.trials[len(states) :]))


def test_the_legend_of_the_picture_names_them(view: SweepView) -> None:
    picture = charts.learning_curves(view)
    for word in ENDS:
        assert f">{word}</text>" in picture, word


def test_the_figure_has_a_symbol_for_each(view: SweepView) -> None:
    traces = interactive.learning_curves(view)["data"]
    symbols = {t["name"]: t["marker"]["symbol"] for t in traces if t["name"] in ENDS}
    assert set(symbols) == set(ENDS)
    assert len(set(symbols.values())) == len(ENDS)
    assert "square-open" not in symbols.values(), "that is for states without a mark of their own"
