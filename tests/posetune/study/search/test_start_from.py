"""A sweep that starts from the trials of others."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.simulated_driver import (
    SPEC,
    SimulatedTrial,
    drive,
    open_unsynced,
    outcome,
    simulated_loss,
)
from support.simulated_driver import simulated_start as sweep_start

from posetune.api import BadInputError
from posetune.spec.sweep import SweepSpec
from posetune.study.driving.sweep import SweepRun
from posetune.study.driving.sweep_start import SweepStart
from posetune.study.reading import list_sweeps
from posetune.study.search.curves.data import CurveData, Seen
from posetune.study.search.curves.model import CurveModel, fit, start_shape
from posetune.study.search.seed_noise import seed_noise
from posetune.study.search.start_from import Overlap, PriorTrial
from posetune.study.states import TrialState
from posetune.study.tables.database import Database
from posetune.study.trials import TrialRecord

OWN = 10
"""Trials of its own that a model sees beside those on other data."""


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


def overlapping(seed: int) -> tuple[SweepSpec, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Two sweeps of one trainable, each of whose fields is searched, fixed or left alone.

    Returns:
        This sweep, what the other one has fixed, a trial of it, and the trainable's defaults.
    """
    draw = random.Random(seed)

    def value() -> int:
        return draw.choice([0, 1, 1, 1, 1, 2])  # the same often enough

    defaults = {name: value() for name in "abcd"}
    search, here, there, trial = {}, {}, {}, {}
    for name in defaults:
        ours, theirs = draw.choice("sfd"), draw.choice("sfd")
        if ours == "s":
            search[name] = {"int": [draw.randint(0, 1), 2]}
        if ours == "f":
            here[name] = value()
        if theirs == "f":
            there[name] = value()
        if theirs == "s":
            trial[name] = value()
    search["e"] = {"int": [0, 2]}
    trial["e"] = value()
    spec = SweepSpec.model_validate({**SPEC, "search": search, "fixed": here})
    return spec, there, trial, {**defaults, "e": 0}


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_a_trial_is_taken_if_and_only_if_this_sweep_could_have_trained_the_same(
    first: int,
) -> None:
    taken = 0
    for seed in range(first, first + 100):
        spec, there, trial, defaults = overlapping(seed)
        trained = {**defaults, **there, **trial}
        found = Overlap(spec, there, defaults).params(trial)
        within = all(p.holds(trained[name]) for name, p in spec.search.items())
        others = defaults.keys() - spec.search.keys()
        alike = all(trained[n] == {**defaults, **spec.fixed}[n] for n in others)
        assert isinstance(found, dict) == (within and alike), (seed, found)
        if isinstance(found, dict):
            taken += 1
            assert found.keys() == spec.search.keys()
            assert {**defaults, **spec.fixed, **found} == trained, seed
        else:
            assert any(name in found.split() for name in defaults), "a field is named"
    assert 10 < taken < 90


def test_a_field_that_only_this_sweep_searches_has_its_default_in_the_other_ones_trials(
    study: Database,
) -> None:
    wider = {**SPEC["search"], "y": {"float": [0, 1]}}
    start = replace(warm(search=wider), config={"x": 1.0, "depth": 8, "y": 0.25})
    run = SweepRun(study, replace(start, defaults={**start.defaults, "y": 0.25}))
    run.lease.release()
    assert {trial["params"]["y"] for trial in run.state.prior} == {0.25}
    (note,) = run.state.notes
    assert note == "starts from 30 trials of old; taken at the defaults of now: y 0.25"


def test_a_field_that_is_fixed_here_at_what_the_other_one_left_alone_is_no_obstacle(
    study: Database,
) -> None:
    start = warm(fixed={"batch": 4})
    run = SweepRun(study, replace(start, config={"batch": 4}))
    run.lease.release()
    assert len(run.state.prior) == 30
    with pytest.raises(BadInputError, match=r"batch is 8 there and 4 here \(30\)"):
        SweepRun(study, replace(start, name="another", config={"batch": 8}))


def on_other_data(**changes: Any) -> SweepStart:
    """A sweep that starts from `old`, whose trials were trained on another store."""
    content = {"sampler": {"name": "gp", "start_from": ["old"]}, **changes}
    return replace(named("new", **content), store_digest="d2")


def test_only_gp_learns_from_other_data_and_the_others_say_so(study: Database) -> None:
    for sampler in ("tpe", "random"):
        with pytest.raises(BadInputError, match="gp} learns from other data, at a discount"):
            SweepRun(study, on_other_data(sampler={"name": sampler, "start_from": ["old"]}))
    run = SweepRun(study, on_other_data())
    run.lease.release()
    assert {trial["store"] for trial in run.state.prior} == {"d1"}
    (note,) = run.state.notes
    assert note == (
        "starts from 30 trials of old, on other data (digest d1), at a discount that gp learns"
    )


def test_trials_on_other_data_say_nothing_of_the_noise_and_are_no_best(study: Database) -> None:
    run = SweepRun(study, on_other_data())
    run.lease.release()
    assert seed_noise(run.state) is None
    assert run.best is None
    assert run.state.bests == []


@pytest.mark.slow
def test_the_sampler_begins_where_a_sweep_on_other_data_had_come(study: Database) -> None:
    cold = {"name": "gp"}
    drive(study, replace(named("cold", sampler=cold), store_digest="d2"))
    drive(study, on_other_data())
    best = {"x": 0.7, "depth": 6}

    def far(params: dict[str, Any]) -> float:
        return abs(params["x"] - best["x"]) + abs(params["depth"] - best["depth"]) / 4

    alone, new = params_of(study, "cold"), params_of(study, "new")
    assert sum(map(far, new[4:9])) < sum(map(far, alone[4:9]))


def seen_with(values: Callable[[dict[str, Any], int], float], store: str = "d1") -> Seen:
    """What the model sees of trials of its own, and of twenty on other data."""
    spec = simulated_spec()
    draw = random.Random(0)

    def point() -> dict[str, Any]:
        return {"x": math.exp(draw.uniform(-4, 2)), "depth": 2 * draw.randint(1, 8)}

    trials = []
    for number in range(OWN):
        trial = TrialRecord(number, point(), 0, epoch=9)
        trial.values = {epoch: simulated_loss(trial.params, epoch) for epoch in range(1, 10)}
        trials.append(trial)
    prior = []
    for _ in range(20):
        params = point()
        told = {epoch: values(params, epoch) for epoch in range(1, 10)}
        prior.append(PriorTrial(params, told, TrialState.COMPLETE, store))
    data = CurveData(spec, trials, prior)
    progress = data.begin()
    for trial in trials:
        data.note_report(progress, trial.number, 9)
    seen = data.see(progress)
    assert seen is not None
    return seen


def simulated_spec() -> SweepSpec:
    return SweepSpec.model_validate(SPEC)


def test_what_other_data_has_in_common_does_not_matter() -> None:
    one = seen_with(simulated_loss)
    other = seen_with(lambda params, epoch: 1000 + simulated_loss(params, epoch))
    np.testing.assert_allclose(one.observations.values_n, other.observations.values_n, atol=1e-9)
    assert one.best == other.best
    assert one.observations.stores_t is not None
    assert sorted(one.observations.stores_t) == [0] * OWN + [1] * 20


def test_however_large_other_data_is_its_best_is_no_further_away_than_its_median() -> None:
    seen = seen_with(lambda params, epoch: 1e6 * simulated_loss(params, epoch)).observations
    assert seen.stores_n is not None
    assert seen.values_n[seen.stores_n == 1].min() == pytest.approx(-1.0)


def test_the_model_learns_how_far_to_believe_other_data() -> None:
    def against(params: dict[str, Any], epoch: int) -> float:
        return 2 / epoch - simulated_loss(params, epoch)

    alike, unlike = (fit(seen_with(f).observations) for f in (simulated_loss, against))
    assert alike.other < start_shape(2).other < unlike.other


def test_other_data_that_is_not_believed_at_all_changes_no_prediction() -> None:
    seen = seen_with(simulated_loss).observations
    assert seen.stores_t is not None
    shape = dataclasses.replace(start_shape(2), other=1e4)
    ends = seen.epochs_n == seen.last_epoch  # of the way there curves tell each other on any data
    both, alone = (
        dataclasses.replace(
            seen,
            trials_n=seen.trials_n[rows],
            epochs_n=seen.epochs_n[rows],
            values_n=seen.values_n[rows],
        )
        for rows in (ends, ends & (seen.stores_n == 0))
    )
    points, none = np.array([[0.5, 0.5], [0.1, 0.9]]), np.array([-1, -2])
    with_it, without = (CurveModel(shape, o).ends(points, none) for o in (both, alone))
    np.testing.assert_allclose(with_it.mean_c, without.mean_c, atol=1e-3)
    np.testing.assert_allclose(with_it.spread_c, without.spread_c, atol=1e-3)
    believed = CurveModel(dataclasses.replace(shape, other=0.05), both).ends(points, none)
    assert np.all(believed.spread_c < without.spread_c)
