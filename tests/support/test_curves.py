"""Replayed searches: counted as a naive count, and as probability says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.curves import Curves, Search, epochs_until
from support.simulated_driver import open_unsynced

from posetune.study.reading import read_sweep
from posetune.study.tables.database import Database

EPOCHS = 3
SPACE = {"x": (1, 2, 3), "y": (0.0, 0.5)}


def curve(x: float, y: float) -> tuple[float, ...]:
    """Best at x = 3, y = 0.5; it falls by one after each epoch."""
    return tuple(abs(x - 3) + (0.5 - y) + EPOCHS - epoch for epoch in range(1, EPOCHS + 1))


CURVES = Curves(SPACE, {point: curve(*point) for point in itertools.product(*SPACE.values())})


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Database]:
    opened = open_unsynced(tmp_path / "study.db")
    yield opened
    opened.close()


def search(study: Database, seed: int, target: float = 0.0, **spec: object) -> Search:
    given = {"sampler": {"name": "random"}, "pruner": {"name": "none"}, "budget": {"trials": 200}}
    return epochs_until(study, CURVES, target, seed=seed, slots=1, **{**given, **spec})


@pytest.mark.slow
def test_random_search_in_full_takes_what_probability_says(study: Database) -> None:
    """One point of six is good enough; none is drawn twice: 3.5 trainings on average."""
    epochs = [search(study, seed).epochs for seed in range(30)]
    error = np.std(epochs, ddof=1) / np.sqrt(len(epochs))
    assert abs(np.mean(epochs) - 3.5 * EPOCHS) < 2.5 * error
    assert error < 0.25 * 3.5 * EPOCHS


def count_naively(points: list[dict[str, float]], factor: int) -> int:
    """Epochs of one trial after another until the best value, with a list for each rung."""
    rungs: dict[int, list[float]] = {1: [], 2: []}
    count = 0
    for point in points:
        for epoch, value in enumerate(curve(**point), start=1):
            count += 1
            if value == 0:
                return count
            before = rungs.get(epoch, [])
            cut = len(before) > 0 and value > np.percentile(before, 100 / factor)
            before.append(value)
            if cut:
                break
    raise AssertionError("never reached")


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_epochs_are_those_of_a_naive_count(study: Database, sampler: str) -> None:
    for seed in range(4):
        pruner = {"name": "asha", "reduction_factor": 2}
        found = search(study, seed, sampler={"name": sampler}, pruner=pruner)
        points = [trial.params for trial in read_sweep(study, f"search{seed}").trials]
        assert (found.reached, found.trials) == (True, len(points))
        assert found.epochs == count_naively(points, factor=2)


def test_a_search_that_never_gets_there_says_so(study: Database) -> None:
    found = search(study, 0, target=-1.0, budget={"trials": 4})
    values = [trial.value for trial in read_sweep(study, "search0").trials]
    assert found == Search(4 * EPOCHS, 4, False, min(values))


def test_a_point_that_failed_ends_its_trial_there(study: Database) -> None:
    curves = Curves({"x": (1, 2)}, {(1,): (5.0,), (2,): (4.0, 3.0)})
    spec = {"sampler": {"name": "random"}, "pruner": {"name": "none"}, "budget": {"trials": 9}}
    epochs_until(study, curves, 0.0, seed=0, **spec)
    trials = read_sweep(study, "search0").trials
    ends = {(trial.params["x"], trial.state, trial.epochs) for trial in trials}
    assert ends == {(1, "FAILED", 1), (2, "COMPLETE", 2)}
    assert (curves.epochs, curves.best) == (2, 3.0)
