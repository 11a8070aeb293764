"""Tests the laws that every sampler and every pruner must keep.

Subclass `SamplerConformance` or `PrunerConformance` in a test module:

    class TestMine(SamplerConformance):
        @abstractmethod
    def make(self, spec, trials):
            return Mine(spec, trials)
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from posetune.spec.parameters import Scalar
from posetune.spec.sweep import SweepSpec
from posetune.study.search.contracts import Pruner, Sampler
from posetune.study.search.rungs import Decision
from posetune.study.search.space import holds
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord

__all__ = ["PrunerConformance", "SamplerConformance"]

SPACES: dict[str, dict[str, Any]] = {
    "real numbers": {
        "rate": {"float": [1e-4, 1e-2], "log": True},
        "weight": {"float": [0.0, 1.0]},
    },
    "mixed": {
        "rate": {"choice": [1e-4, 1e-3, 1e-2]},
        "network": {"choice": ["a", "b", "c"]},
        "depth": {"int": [2, 16], "step": 2},
        "weight": {"float": [0.0, 1.0], "step": 0.25},
    },
}
"""Search spaces, by a name for messages."""
EPOCHS, TRIALS = 9, 12


def sweep_of(space: str, **changes: Any) -> SweepSpec:
    """Return a sweep over one of the spaces; `changes` replace keys of its file."""
    content = {
        "objective": {"metric": "loss", "mode": "min"},
        "search": SPACES[space],
        "pruner": {"max_epochs": EPOCHS},
        "budget": {"trials": TRIALS},
        **changes,
    }
    return SweepSpec.model_validate(content)


def first_point(spec: SweepSpec) -> dict[str, Scalar]:
    """Return the parameters of trial 0."""
    return {name: parameter.corners[0] for name, parameter in spec.search.items()}


def loss_of(params: dict[str, Scalar], epoch: int) -> float:
    """Return a value that depends on every parameter and falls with the epochs."""
    parts = [len(v) if isinstance(v, str) else math.log1p(float(v)) for v in params.values()]
    return sum((part - 0.5) ** 2 for part in parts) + 1 / epoch


def ended(number: int, params: dict[str, Scalar], epochs: int) -> TrialRecord:
    """Return a trial that has ended after some epochs."""
    record = TrialRecord(number, params, seed=number, attempt=1, epoch=epochs)
    record.values = {epoch: loss_of(params, epoch) for epoch in range(1, epochs + 1)}
    record.value = record.values[epochs]
    record.state = TrialState.COMPLETE if epochs == EPOCHS else TrialState.PRUNED
    return record


class SamplerConformance(ABC):
    """Holds the tests that every sampler must pass; a subclass makes the sampler."""

    changes: ClassVar[dict[str, Any]] = {}
    """Keys of the sweep file that the sampler needs."""

    @abstractmethod
    def make(self, spec: SweepSpec, trials: Sequence[TrialRecord]) -> Sampler:
        """Return a new sampler that sees some trials."""

    @pytest.mark.parametrize("space", SPACES)
    def test_what_it_proposes_lies_in_the_search_space(self, space: str) -> None:
        """Every parameter has one of its values, and no other has any."""
        for record in self._lived(space)[1:]:
            spec = sweep_of(space, **self.changes)
            assert record.params.keys() == spec.search.keys()
            for name, parameter in spec.search.items():
                assert holds(parameter, record.params[name]), (name, record.params[name])

    def test_no_point_of_a_finite_space_is_proposed_twice(self) -> None:
        """A sweep has fewer trials than the space has points."""
        points = [tuple(record.params.values()) for record in self._lived("mixed")]
        assert len(set(points)) == len(points)

    @pytest.mark.parametrize("space", SPACES)
    def test_asked_again_it_proposes_the_same(self, space: str) -> None:
        """Nothing has happened in between."""
        spec = sweep_of(space, **self.changes)
        trials = [ended(0, first_point(spec), EPOCHS)]
        sampler = self.make(spec, trials)
        assert sampler.ask(1) == sampler.ask(1)

    @pytest.mark.parametrize("space", SPACES)
    def test_one_that_begins_later_proposes_what_one_proposes_that_was_there(
        self, space: str
    ) -> None:
        """A driver that takes over proposes what the one before would have."""
        spec, lived = sweep_of(space, **self.changes), self._lived(space)
        for number in range(1, TRIALS):
            assert self.make(spec, lived[:number]).ask(number) == lived[number].params

    def _lived(self, space: str) -> list[TrialRecord]:
        """Return the trials of a sweep that one sampler has proposed."""
        spec = sweep_of(space, **self.changes)
        trials = [ended(0, first_point(spec), EPOCHS)]
        sampler = self.make(spec, trials)
        for number in range(1, TRIALS):
            trials.append(ended(number, dict(sampler.ask(number)), EPOCHS if number % 3 else 3))
        return trials


class PrunerConformance(ABC):
    """Holds the tests that every pruner must pass; a subclass makes the pruner."""

    changes: ClassVar[dict[str, Any]] = {}
    """Keys of the sweep file that the pruner needs."""

    @abstractmethod
    def make(self, spec: SweepSpec, trials: Sequence[TrialRecord]) -> Pruner:
        """Return a new pruner that sees some trials."""

    def test_a_trial_goes_on_or_is_cut_and_deciding_changes_nothing(self) -> None:
        """The same report gets the same answer, also of a pruner that begins here."""
        generator = random.Random(0)
        spec = sweep_of("real numbers", **self.changes)
        trials: list[TrialRecord] = []
        lived = self.make(spec, trials)
        for number in range(TRIALS):
            params: dict[str, Scalar] = {}
            for name in spec.search:
                params[name] = generator.uniform(1e-4, 1e-2)
            record = TrialRecord(number, params, seed=number, attempt=1)
            trials.append(record)
            for epoch in range(1, EPOCHS):
                value = None if generator.random() < 0.1 else number % 5 + 1 / epoch
                found = [lived.decide(number, epoch, value) for _ in range(2)]
                assert found[0] == found[1]
                assert self.make(spec, trials).decide(number, epoch, value) == found[0]
                assert found[0].decision in (Decision.CONTINUE, Decision.PRUNE)
                record.epoch, record.value, record.values[epoch] = epoch, value, value
                if found[0].decision == Decision.PRUNE:
                    record.state = TrialState.PRUNED
                    break
