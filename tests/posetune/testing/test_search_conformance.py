"""Our own samplers, and a sampler and a pruner of somebody else's, keep the laws of all."""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.simulated_driver import drive, open_unsynced, simulated_start

from posetune.api import BadInputError
from posetune.spec.loading import load_sweep
from posetune.spec.registration import TRAINABLES_VARIABLE
from posetune.spec.sweep import SweepSpec
from posetune.study.reading import read_sweep
from posetune.study.search.contracts import NamedPruner, NamedSampler, Pruner, Sampler
from posetune.study.search.curves.search import CurveSearch
from posetune.study.search.sampler import SearchMemory
from posetune.study.trials import TrialRecord
from posetune.testing.search_conformance import PrunerConformance, SamplerConformance

THEIRS = """
import random

from posetune.study.search.rungs import Decision, RungVerdict


class Anywhere:
    def __init__(self, spec, trials):
        self.spec = spec

    def ask(self, number):
        generator = random.Random(number)
        return {name: generator.choice(p.corners) for name, p in self.spec.search.items()}


class Outside(Anywhere):
    def ask(self, number):
        return {name: 1e9 for name in self.spec.search}


class WorseThanTheFirst:
    def __init__(self, spec, trials):
        self.trials = trials

    def decide(self, trial, epoch, value):
        first = self.trials[0].values.get(epoch)
        if trial == 0 or first is None or value is None or value <= first:
            return RungVerdict(Decision.CONTINUE)
        return RungVerdict(Decision.PRUNE, why="worse than trial 0")


class Lost:
    pass
"""


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of somebody else's, registered but for one of its classes."""
    (tmp_path / "their_search.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_search", raising=False)
    classes = ("Anywhere", "Outside", "WorseThanTheFirst", "Lost")
    named = [f"their_search:{name}" for name in classes]
    monkeypatch.setenv(TRAINABLES_VARIABLE, ",".join(named))


class TestTPE(SamplerConformance):
    def make(self, spec: SweepSpec, trials: Sequence[TrialRecord]) -> Sampler:
        return SearchMemory(spec, trials)


class TestRandom(TestTPE):
    changes: ClassVar[dict[str, Any]] = {"sampler": {"name": "random"}}


class TestGP(SamplerConformance):
    changes: ClassVar[dict[str, Any]] = {"sampler": {"name": "gp"}}

    def make(self, spec: SweepSpec, trials: Sequence[TrialRecord]) -> Sampler:
        return CurveSearch(spec, trials, _Log(trials))


class _Log(Sequence[tuple[int, int]]):
    """The reports of trials that ran one after the other."""

    def __init__(self, trials: Sequence[TrialRecord]) -> None:
        self._trials = trials

    def _all(self) -> list[tuple[int, int]]:
        return [(trial.number, epoch) for trial in self._trials for epoch in trial.values]

    def __len__(self) -> int:
        return len(self._all())

    def __getitem__(self, index: Any) -> Any:
        return self._all()[index]


class TestTheirSampler(SamplerConformance):
    changes: ClassVar[dict[str, Any]] = {"sampler": {"name": "their_search:Anywhere"}}

    def make(self, spec: SweepSpec, trials: Sequence[TrialRecord]) -> Sampler:
        return NamedSampler(spec, trials)


class TestTheirPruner(PrunerConformance):
    changes: ClassVar[dict[str, Any]] = {
        "pruner": {"name": "their_search:WorseThanTheFirst", "max_epochs": 9}
    }

    def make(self, spec: SweepSpec, trials: Sequence[TrialRecord]) -> Pruner:
        return NamedPruner(spec, trials)


def test_a_sweep_runs_with_a_sampler_and_a_pruner_of_somebody_elses(tmp_path: Path) -> None:
    start = simulated_start(
        search={"x": {"choice": [0.1, 0.7, 3.0]}, "depth": {"choice": [2, 6]}},
        sampler={"name": "their_search:Anywhere"},
        pruner={"name": "their_search:WorseThanTheFirst", "max_epochs": 9},
    )
    start = dataclasses.replace(start, defaults={"x": 0.1, "depth": 6})
    database = open_unsynced(tmp_path / "study.db")
    drive(database, start, order=random.Random(0))
    view = read_sweep(database, "s")
    assert view.state == "COMPLETE"
    assert len({tuple(trial.params.values()) for trial in view.trials}) == 6
    cut = {trial.reason for trial in view.trials if trial.state == "PRUNED"}
    assert cut == {"cut at epoch 1: worse than trial 0"}


def test_a_trial_outside_of_edited_bounds_is_no_point_of_their_space() -> None:
    search = {"x": {"choice": [0.2, 0.3]}, "depth": {"choice": [2, 4]}}
    spec = simulated_start(search=search, sampler={"name": "their_search:Anywhere"}).spec
    enqueued = TrialRecord(0, {"x": 0.1, "depth": 2}, seed=0)
    assert NamedSampler(spec, [enqueued]).ask(1) == NamedSampler(spec, []).ask(1)


def test_what_is_not_in_the_search_space_is_refused() -> None:
    spec = simulated_start(sampler={"name": "their_search:Outside"}).spec
    with pytest.raises(ValueError, match=r"their_search:Outside: proposed .* not in the search"):
        NamedSampler(spec, []).ask(1)


@pytest.mark.parametrize(
    ("section", "named", "message"),
    [
        ("sampler", "their_search:Anywhere", ""),
        ("sampler", "their_search:Missing", "is not registered"),
        ("sampler", "their_search:Lost", "is no sampler, it lacks ask"),
        ("pruner", "their_search:Lost", "is no pruner, it lacks decide"),
    ],
)
def test_a_sweep_file_names_registered_classes_only(
    tmp_path: Path, section: str, named: str, message: str
) -> None:
    more = {"sampler": "sampler: {name: %s}\npruner: {max_epochs: 9}\n"}
    more["pruner"] = "pruner: {name: %s, max_epochs: 9}\n"
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "trainable: posetune.testing.toy:Toy\nobjective: {metric: val/error_mm, mode: min}\n"
        "search: {x: {float: [0.01, 1]}}\nbudget: {trials: 4}\n" + more[section] % named
    )
    if not message:
        assert load_sweep(file)[0].sampler.name == named
        return
    with pytest.raises(BadInputError, match=rf"sweep.yaml:5: .*{message}"):
        load_sweep(file)
