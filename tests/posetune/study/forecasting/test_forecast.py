"""Forecasts: held to the actual sampler, and to what recorded sweeps took."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.recording import RecordedStep, draw_start, replay
from support.simulated_driver import open_unsynced

from posetune.study.forecasting.forecast import Forecast, Interval, forecast, forecast_sweep
from posetune.study.forecasting.forecast_model import GAIN, ForecastInput, worth
from posetune.study.search.sampler import SearchMemory
from posetune.study.states import TrialState
from posetune.study.tables.database import Database
from posetune.study.trials import TrialRecord

REPLAYS = 24


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Database]:
    opened = open_unsynced(tmp_path / "study.db")
    yield opened
    opened.close()


def given(seed: int = 0, **changes: object) -> ForecastInput:
    sweep_start = draw_start(np.random.default_rng(seed), **changes)
    return ForecastInput(sweep_start.spec, slots=2, epoch_s=10.0, setup_s=1.0)


def test_without_pruning_the_epochs_are_certain_and_the_time_is_not() -> None:
    certain = given(pruner={"name": "none", "max_epochs": 5}, budget={"trials": 8})
    found = forecast(certain)
    assert found.epochs.high == 40
    assert found.epochs.low >= 32  # a trial may fail
    assert found.held_s.low < 40 * 10 + 8 < found.held_s.high
    assert found.ends_by == {"trials": 1.0}
    assert forecast(given(pruner={"name": "none", "max_epochs": 5}, budget={"trials": 8})) == found


def test_a_million_trials_with_hours_are_forecast_by_their_hours() -> None:
    budget = {"trials": 1_000_000, "wall_hours": 0.02}
    found = forecast(given(pruner={"max_epochs": 9}, budget=budget))
    assert found is not None
    assert found.ends_by == {"wall_hours": 1.0}
    assert found.wall_s.high < 72 + 3


def test_what_cannot_be_simulated_in_its_time_has_no_forecast() -> None:
    began = time.thread_time()
    endless = given(pruner={"max_epochs": 9}, budget={"trials": 1_000_000})
    assert forecast(endless, seconds=0.5) is None
    assert time.thread_time() - began < 2.5


def test_few_replications_are_a_forecast_too() -> None:
    large = given(pruner={"max_epochs": 9}, budget={"trials": 40})
    all_of_them, some = forecast(large, seconds=math.inf), forecast(large, replications=5)
    assert all_of_them is not None
    assert some is not None
    assert abs(math.log(some.epochs.middle / all_of_them.epochs.middle)) < 0.5


@pytest.mark.slow
def test_a_sampler_that_learns_is_expected_to_train_longer() -> None:
    size = {"pruner": {"max_epochs": 27, "reduction_factor": 3}, "budget": {"trials": 60}}
    random, learning = (
        forecast(given(sampler={"name": name}, **size)).epochs for name in ("random", "tpe")
    )
    assert learning.middle > 1.3 * random.middle


def test_limits_of_hours_bound_the_forecast() -> None:
    base = given(pruner={"max_epochs": 9}, budget={"trials": 40})
    for limits, bound in (({"gpu_hours": 0.05}, 360 / 0.5), ({"wall_hours": 0.05}, 180.0)):
        budget = base.spec.budget.model_copy(update=limits)
        spec = base.spec.model_copy(update={"budget": budget})
        found = forecast(dataclasses.replace(base, spec=spec))
        interval = found.held_s if "gpu_hours" in limits else found.wall_s
        assert interval.high < bound + 3 * 10 + 3
        assert found.ends_by == {next(iter(limits)): 1.0}


@pytest.mark.slow
def test_the_modelled_gain_is_that_of_the_actual_sampler() -> None:
    """The worth of TPE's trials 30 to 49 among random ones, on four bowls of three parameters."""
    found = []
    for seed in range(4):
        generator = np.random.default_rng(seed)
        search = {f"p{i}": {"float": [0.0, 1.0]} for i in range(3)}
        spec = draw_start(generator, search=search, sampler={"name": "tpe", "seed": seed}).spec
        optimum = generator.uniform(0.1, 0.9, 3)
        trials: list[TrialRecord] = []
        memory = SearchMemory(spec, trials)
        losses = []
        for number in range(50):
            params = memory.ask(number)
            losses.append(float(np.sum(np.abs(np.array([*params.values()]) - optimum) ** 1.5)))
            ended = TrialRecord(number, params, 0, epoch=1, value=losses[-1])
            ended.values[1], ended.state = losses[-1], TrialState.COMPLETE
            trials.append(ended)
        everywhere = np.sort(np.sum(np.abs(generator.random((4000, 3)) - optimum) ** 1.5, axis=1))
        rank = np.searchsorted(everywhere, losses[30:]) / 4000
        found.append(float(np.mean(rank)))
    numbers = np.arange(50)
    drawn = worth(numbers, np.full((400, 1), GAIN), generator.normal(size=(400, 50)))
    normal = np.sort(generator.normal(size=4000))
    modelled = float(np.mean(np.searchsorted(normal, drawn[:, 30:]) / 4000))
    assert modelled < 0.15
    assert abs(np.mean(found) - modelled) < 0.1


@pytest.mark.slow
@pytest.mark.long
def test_intervals_hold_in_recorded_sweeps(study: Database) -> None:
    held, wall = [], []
    for seed in range(500, 500 + REPLAYS):
        recorded = replay(study, seed, (0.3, 0.7), budget={"trials": 16})
        taken = sum(trial.held_s for trial in recorded.end.trials)
        for found in forecasts(recorded):
            held.append(holds(found.held_s, taken))
            wall.append(holds(found.wall_s, recorded.end.driven_s))
    assert len(held) > 2 * REPLAYS
    # Of 60 or more that are partly alike, each true with 0.8.
    assert 0.62 < np.mean(held) < 0.95
    assert 0.62 < np.mean(wall) < 0.95


def forecasts(recorded: RecordedStep) -> Iterator[Forecast]:
    """Before the start, and on the way."""
    spec = recorded.end.spec
    slots = min(recorded.slots, spec.budget.trials)
    begun = ForecastInput(spec, slots, recorded.epoch_s, recorded.setup_s)
    found = [forecast(begun, seconds=math.inf)]
    found += [forecast_sweep(view, seconds=math.inf) for view in recorded.snapshots]
    yield from (each for each in found if each is not None)


def holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high
