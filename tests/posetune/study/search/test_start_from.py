"""A sweep that starts from the trials of others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.simulated_driver import SPEC, SimulatedTrial, drive, open_unsynced, outcome
from support.simulated_driver import simulated_start as sweep_start

from posetune.api import BadInputError
from posetune.study.driving.sweep import SweepRun
from posetune.study.driving.sweep_start import SweepStart
from posetune.study.reading import list_sweeps
from posetune.study.tables.database import Database


def named(name: str, **changes: Any) -> SweepStart:
    return replace(sweep_start(**changes), name=name)


def warm(**changes: Any) -> SweepStart:
    return named("new", sampler={"start_from": ["old"]}, **changes)


@pytest.fixture
def study(tmp_path: Path) -> Database:
    database = open_unsynced(tmp_path / "study.db")
    drive(database, named("old", budget={"trials": 30}))
    return database


def params_of(database: Database, name: str) -> list[dict[str, Any]]:
    (view,) = [v for v in list_sweeps(database) if v.name == name]
    return [trial.params for trial in view.trials]


def test_the_sampler_begins_where_the_other_sweep_had_come(study: Database) -> None:
    drive(study, named("cold"))
    drive(study, warm())
    best = {"x": 0.7, "depth": 6}

    def far(params: dict[str, Any]) -> float:
        return abs(params["x"] - best["x"]) + abs(params["depth"] - best["depth"]) / 4

    cold, new = params_of(study, "cold"), params_of(study, "new")
    assert new[0] == cold[0], "trial 0 is the defaults in either"
    assert sum(map(far, new[1:9])) < sum(map(far, cold[1:9])), "TPE has learned already"


@pytest.mark.slow
def test_a_resume_repeats_it_although_the_other_sweep_has_grown(
    study: Database, tmp_path: Path
) -> None:
    drive(study, warm())
    expected = params_of(study, "new")
    other = open_unsynced(tmp_path / "again.db")
    drive(other, named("old", budget={"trials": 30}))
    run = SweepRun(other, warm())
    for _ in range(4):
        trial = run.next_trial()
        assert trial is not None
        under_way = SimulatedTrial(run, trial.number)
        while under_way.step() == "continue":
            pass
    run.lease.release()
    drive(other, named("old", budget={"trials": 33}))
    drive(other, warm())
    assert params_of(other, "new") == expected
    assert outcome(other) != outcome(study), "the other sweep did grow"


def test_what_does_not_fit_is_named(study: Database) -> None:
    narrow = {**SPEC["search"], "depth": {"int": [2, 8], "step": 2}}
    run = SweepRun(study, warm(search=narrow))
    run.lease.release()
    (note,) = run.state.notes
    assert "trials of old; left out: depth outside [2, 8] (" in note


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pruner": {"max_epochs": 27}}, "its pruner.max_epochs is 9, this one's 27"),
        ({"objective": {"metric": "other", "mode": "min"}}, "its objective is loss"),
        ({"fixed": {"batch": 4}}, "batch is the default there and 4 here"),
        ({"search": {**SPEC["search"], "y": {"float": [0, 1]}}}, "y is searched here"),
        ({"search": {"x": SPEC["search"]["x"]}}, "depth is "),
    ],
)
def test_a_sweep_that_cannot_be_learned_from_is_refused(
    study: Database, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInputError, match="start_from") as caught:
        SweepRun(study, warm(**changes))
    assert words in str(caught.value)
    assert [view.name for view in list_sweeps(study)] == ["old"], "nothing was begun"


def test_a_sweep_that_is_not_there_is_named(study: Database) -> None:
    with pytest.raises(BadInputError, match="no sweep 'missing'"):
        SweepRun(study, named("new", sampler={"start_from": ["missing"]}))


def test_other_data_is_refused(study: Database) -> None:
    with pytest.raises(BadInputError, match="its store has digest d1, this one d2"):
        SweepRun(study, replace(warm(), store_digest="d2"))
