"""Optuna's sampler, rebuilt in memory from the study's events.

The Optuna study is a cache: feed it the events in order and it stands as it stood. A sampler
reopened with the same seed would repeat its first draws, so every ask has a sampler of its own,
seeded by (sweep seed, trial number); all parameters of a trial are drawn in that one ask. The
draws are then a function of the events alone, and a killed sweep continues with the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from posetune.spec.parameters import Choice, FloatRange, IntRange, Scalar
from posetune.spec.sweep import SweepSpec, vary_one_by_one
from posetune.study.seeding import seed_for
from posetune.study.warm import WarmTrial

__all__ = ["SearchMemory", "distributions"]


_STATES = {
    None: TrialState.RUNNING,
    "COMPLETE": TrialState.COMPLETE,
    "PRUNED": TrialState.PRUNED,
    "FAILED": TrialState.FAIL,
}


def distributions(spec: SweepSpec) -> dict[str, BaseDistribution]:
    """Return the search space in Optuna's terms, in the file's order."""
    return {name: _distribution(parameter) for name, parameter in spec.search.items()}


def _distribution(parameter: FloatRange | IntRange | Choice) -> BaseDistribution:
    if isinstance(parameter, FloatRange):
        low, high = parameter.bounds
        return FloatDistribution(low, high, log=parameter.log, step=parameter.step)
    if isinstance(parameter, IntRange):
        first, last = parameter.corners
        return IntDistribution(int(first), int(last), log=parameter.log, step=parameter.step)
    return CategoricalDistribution(parameter.values)


class SearchMemory:
    """What the sampler knows: every trial with its parameters, reports and end.

    Trials are numbered from 0 without holes; in Optuna those of other sweeps come before them.
    """

    def __init__(self, spec: SweepSpec, warm: Sequence[WarmTrial] = ()) -> None:
        """Begin with the trials of other sweeps that are to be learned from.

        Args:
            spec: the sweep.
            warm: trials within its search space.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._spec = spec
        self._space = distributions(spec)
        self._storage = InMemoryStorage()
        minimize = spec.objective.mode == "min"
        direction = StudyDirection.MINIMIZE if minimize else StudyDirection.MAXIMIZE
        self._study = optuna.create_study(direction=direction, storage=self._storage)
        self._before = len(warm)
        for trial in warm:
            self.add(trial.params, trial.values, trial.state)

    def ask(self, number: int) -> dict[str, Scalar]:
        """Draw the parameters of trial `number`, which runs from now on."""
        if self._spec.sampler.name == "one_by_one":
            defaults = self._study.get_trials(deepcopy=False)[self._before].params
            self._study.enqueue_trial(vary_one_by_one(self._spec, defaults)[number])
        seed = seed_for(self._spec.sampler.seed, number, "sampler")
        self._study.sampler = self._sampler(seed)
        trial = self._study.ask(self._space)
        return dict(trial.params)

    def add(
        self,
        params: Mapping[str, Scalar],
        values: Mapping[int, float] | None = None,
        state: str | None = None,
    ) -> None:
        """Add the next trial with parameters that are known, as `report` and `tell` leave it.

        Args:
            params: the trial's parameters.
            values: the objective by epoch, in ascending order, where it was a number.
            state: COMPLETE, PRUNED or FAILED; None while it runs.
        """
        reported = dict(values or {})
        last = reported[max(reported)] if reported else None
        self._study.add_trial(
            create_trial(
                state=_STATES[state],
                value=last if state in ("COMPLETE", "PRUNED") else None,
                params=dict(params),
                distributions=self._space,
                intermediate_values=reported,
            )
        )

    def report(self, number: int, epoch: int, value: float | None) -> None:
        """Add a report."""
        if value is not None:
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(
                self._study._study_id, self._before + number
            )
            self._storage.set_trial_intermediate_value(trial_id, epoch, value)

    def tell(self, number: int, state: str, value: float | None) -> None:
        """End a trial: COMPLETE, PRUNED or FAILED."""
        told = value if state == "COMPLETE" else None
        self._study.tell(self._before + number, told, state=_STATES[state])

    def _sampler(self, seed: int) -> BaseSampler:
        if self._spec.sampler.name == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed)
