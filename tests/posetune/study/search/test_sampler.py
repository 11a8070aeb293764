"""What the sampler draws: no point twice, numbers in their order, and nothing from audits."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState as OptunaState
from support.simulated_driver import (
    SimulatedTrial,
    drive,
    happened,
    open_unsynced,
    simulated_start,
)

from posetune.study import events
from posetune.study.driving import sweep_start
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.reading import read_sweep
from posetune.study.search.rungs import Decision
from posetune.study.search.sampler import SearchMemory
from posetune.study.search.space import Space
from posetune.study.search.startup import start_values
from posetune.study.states import TrialState
from posetune.study.tables.database import Database
from posetune.study.trials import TrialRecord
from posetune.study.view import SweepView

GRID = {"x": {"choice": [0.01, 0.1, 0.7, 10.0]}, "depth": {"int": [2, 16], "step": 2}}


def grid(samples: str = "tpe", **changes: Any) -> SweepStart:
    """A sweep of 32 points that has a budget for more trials."""
    content = {"search": GRID, "sampler": {"name": samples}, "budget": {"trials": 40}, **changes}
    return dataclasses.replace(simulated_start(**content), defaults={"x": 0.7, "depth": 8})


def points(view: SweepView) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(trial.params.values()) for trial in view.trials)


def begin(database: Database, start: SweepStart, rules: int, monkeypatch: Any) -> None:
    """Begin a sweep under older rules."""
    monkeypatch.setattr(sweep_start, "SEMANTICS", rules)
    SweepRun(database, start).lease.release()
    monkeypatch.undo()


@pytest.mark.slow
@pytest.mark.parametrize("samples", ["tpe", "random"])
def test_no_point_is_trained_twice_and_a_space_that_is_used_up_ends_the_sweep(
    tmp_path: Path, samples: str
) -> None:
    database = open_unsynced(tmp_path / "study.db")
    drive(database, grid(samples), slots=3)
    view = read_sweep(database, "s")
    assert set(points(view).values()) == {1}
    assert len(view.trials) == Space(view.spec.search).count == 32
    assert view.state == "COMPLETE"
    assert view.left_out.never_started == 0
    run = SweepRun(database, grid(samples))
    assert not run.may_start
    assert run.finished == "finished: all 32 points of the search space were tried"
    run.lease.release()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "count", "trials"),
    [
        ({"x": {"choice": [0.01, 0.7]}, "depth": {"int": [4, 8], "step": 2}}, 6, 20),
        ({"x": {"float": [0.1, 1.6], "step": 0.1}, "depth": {"int": [2, 16], "step": 2}}, 128, 128),
    ],
    ids=["6 points, 20 trials", "128 points, 128 trials"],
)
def test_as_many_points_are_trained_as_there_are(
    tmp_path: Path, search: dict[str, Any], count: int, trials: int
) -> None:
    """Before, 20 trainings of 6 points, and 70 different ones of 128, one of them 32 times."""
    database = open_unsynced(tmp_path / "study.db")
    drive(database, grid(search=search, budget={"trials": trials}), slots=3)
    view = read_sweep(database, "s")
    assert (len(view.trials), view.state) == (count, "COMPLETE")
    assert set(points(view).values()) == {1}


def test_a_sweep_that_was_begun_before_draws_points_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_unsynced(tmp_path / "study.db")
    begin(database, grid(), 2, monkeypatch)
    drive(database, grid())
    view = read_sweep(database, "s")
    assert len(view.trials) == 40
    assert max(points(view).values()) > 1


def test_choices_of_numbers_are_a_grid_and_others_are_labels() -> None:
    search = {
        "rate": {"choice": [1e-2, 1e-4, 1e-3]},
        "data_set": {"choice": [1, 2, 3], "unordered": True},
        "network": {"choice": ["a", "b"]},
        "on": {"choice": [True, False]},
    }
    spec = simulated_start(search=search).spec
    memory = SearchMemory(spec, [])
    assert memory._space["rate"] == IntDistribution(0, 2)
    for name in ("data_set", "network", "on"):
        assert isinstance(memory._space[name], CategoricalDistribution)
    point = {"rate": 1e-3, "data_set": 2, "network": "b", "on": True}
    assert memory._to_optuna(point)["rate"] == 1
    assert memory._from_optuna(memory._to_optuna(point)) == point
    before = SearchMemory(spec, [], semantics=2)
    assert all(isinstance(d, CategoricalDistribution) for d in before._space.values())


def test_an_audited_trial_is_told_as_cut_where_it_would_have_been(tmp_path: Path) -> None:
    start = simulated_start(pruner={"max_epochs": 9, "audit_share": 1.0})
    database = open_unsynced(tmp_path / "study.db")
    drive(database, start)
    run = SweepRun(database, start)
    audited = run.state.rungs.audited
    assert audited
    for number, trial in enumerate(run._memory._study.trials):
        assert run.trials[number].state == TrialState.COMPLETE
        if number in audited:
            assert trial.state == OptunaState.PRUNED
            assert max(trial.intermediate_values) == audited[number]
        else:
            assert trial.state == OptunaState.COMPLETE
    told = SearchMemory(run.spec, run.trials, semantics=2, audited=audited)
    assert all(trial.state == OptunaState.COMPLETE for trial in told._study.trials)
    run.lease.release()


def test_none_of_the_trials_that_teach_what_is_good_is_an_audited_one() -> None:
    """Of 60 trials a tenth is audited, and each ends far better than all that were cut."""
    spec = simulated_start(pruner={"max_epochs": 9, "audit_share": 0.1}).spec
    trials, audited = [], {}
    generator = random.Random(0)
    for number in range(60):
        params = {"x": generator.uniform(0.01, 10), "depth": 2 * generator.randint(1, 8)}
        trial = TrialRecord(number, params, 0, epoch=1, value=5 + generator.random())
        trial.values, trial.state = {1: trial.value}, TrialState.PRUNED
        if number % 10 == 0:
            audited[number] = 1
            trial.values |= {epoch: 1.0 for epoch in range(2, 10)}
            trial.epoch, trial.value, trial.state = 9, 1.0, TrialState.COMPLETE
        trials.append(trial)

    def good(**rules: Any) -> set[int]:
        memory = SearchMemory(spec, trials, **rules)
        found = memory._study.get_trials(deepcopy=False)
        by_state = [t for t in found if t.state == OptunaState.COMPLETE]
        return {t.number for t in by_state} & set(audited)

    assert good(audited=audited) == set()
    assert good(audited=audited, semantics=2) == set(audited)


def test_start_values_are_drawn_until_enough_trials_have_ended(tmp_path: Path) -> None:
    start = simulated_start(sampler={"startup": 5}, budget={"trials": 9})
    database = open_unsynced(tmp_path / "study.db")
    drive(database, start)
    drawn = [trial.params for trial in read_sweep(database, "s").trials]
    expected = start_values(Space(start.spec.search), 0, 8)
    assert drawn[0] == start.defaults
    assert drawn[1:5] == [expected[number - 1] for number in range(1, 5)]
    assert drawn[5] != expected[4]


@pytest.mark.parametrize(("trials", "startup"), [(12, 4), (64, 10), (2, 1)])
def test_a_third_of_the_trials_are_start_values_and_ten_at_most(trials: int, startup: int) -> None:
    assert simulated_start(budget={"trials": trials}).spec.startup == startup


def test_repeats_train_a_point_under_several_seeds_and_rank_it_by_their_mean(
    tmp_path: Path,
) -> None:
    start = grid(
        sampler={"name": "random", "repeats": 3}, pruner={"name": "none", "max_epochs": 1},
        budget={"trials": 6},
    )  # fmt: skip
    database = open_unsynced(tmp_path / "study.db")
    run = SweepRun(database, start)
    values = [9.0, 1.0, 8.0, 5.0, 4.0, 3.0]
    for value in values:
        trial = run.next_trial()
        assert trial is not None
        assert SimulatedTrial(run, trial.number).step({"loss": value}) == Decision.COMPLETE
    best = run.best
    run.close("finished")
    view = read_sweep(database, "s")
    assert set(points(view).values()) == {3}
    assert len({trial.seed for trial in view.trials}) == 6
    assert view.means[0] == (6.0, pytest.approx(4.358899 / 3**0.5), 3)
    assert view.means[3] == (4.0, pytest.approx(1 / 3**0.5), 3)
    assert [trial.number for trial in view.ranked] == [5, 4, 3, 1, 2, 0]
    assert best is not None
    assert best.number == 5


@pytest.mark.slow
def test_the_same_draws_come_after_a_kill(tmp_path: Path) -> None:
    """Also where the sampler insisted on a point that was tried, and was asked again."""
    whole = open_unsynced(tmp_path / "whole.db")
    drive(whole, grid())
    asked = [event.params for event in happened(whole, events.TrialAsked)]
    trials = read_sweep(whole, "s").trials
    spec = grid().spec
    for number in (5, 12, 20, 28, 31):
        records = [
            TrialRecord(t.number, t.params, t.seed, epoch=t.epochs, value=t.value, state=t.state)
            for t in trials[:number]
        ]
        for record in records:
            reports = [r for r in read_sweep(whole, "s").reports if r.trial == record.number]
            record.values = {report.epoch: report.value for report in reports}
        assert SearchMemory(spec, records).ask(number) == asked[number]
