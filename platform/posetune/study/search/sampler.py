"""Draws parameters with Optuna's sampler, from the trials of a sweep's state.

Optuna's own study is a cache: before each draw it is brought up to the trials as the events have
left them. A sampler reopened with the same seed would repeat its first draws, so every draw has a
sampler of its own, seeded by (sweep seed, trial number); all parameters of a trial are drawn at
once. The draws are then a function of the events alone, and a killed sweep continues with the same
ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState as OptunaState
from optuna.trial import create_trial

from posetune.spec.loading import vary_one_by_one
from posetune.spec.parameters import Choice, FloatRange, IntRange, Scalar
from posetune.spec.sweep import SweepSpec
from posetune.study.search.seeding import seed_for
from posetune.study.search.start_from import PriorTrial
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord

__all__ = ["SearchMemory", "distributions"]


TPE_RULES: dict[str, Any] = {
    "n_startup_trials": 10,
    "n_ei_candidates": 24,
    "multivariate": True,
    "constant_liar": True,
}
"""TPE's settings under rules 1 (`events.SEMANTICS`): the defaults of Optuna 5, spelt out."""

_STATES = {
    None: OptunaState.RUNNING,
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
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


class _SharedSpace(dict[str, BaseDistribution]):
    """The search space, one object for all trials.

    Optuna's storage copies every trial that is added to it deeply; copying the space was three
    quarters of the time in which a sweep of 10,000 trials was continued.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> _SharedSpace:
        return self  # nothing changes it


class SearchMemory:
    """What Optuna knows of a sweep: its trials with their parameters, reports and ends.

    Trials are numbered from 0 without holes; in Optuna those of other sweeps come before them.
    """

    def __init__(
        self,
        spec: SweepSpec,
        trials: Sequence[TrialRecord],
        prior: Sequence[PriorTrial] = (),
    ) -> None:
        """Begin with the trials of other sweeps that are to be learned from.

        Args:
            spec: the sweep.
            trials: its trials; they change with its events.
            prior: trials of other sweeps within its search space.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._spec, self._trials = spec, trials
        self._space = _SharedSpace(distributions(spec))
        self._storage = InMemoryStorage()
        self._study = optuna.create_study(direction=spec.objective.direction, storage=self._storage)
        self._before = len(prior)
        self._known = 0
        """How many of the trials Optuna has heard of."""
        self._open: dict[int, int] = {}
        """Trials whose end Optuna has not heard of, with the last epoch that it knows."""
        self._drawn: tuple[int, dict[str, Scalar]] | None = None
        """The trial that was drawn last, and its parameters."""
        for trial in prior:
            self._add(trial.params, trial.values, trial.state)
        self._catch_up()  # now, not at the first draw, which a free slot waits for

    def ask(self, number: int) -> dict[str, Scalar]:
        """Draw the next trial's parameters; the same ones until the trial is recorded."""
        if self._drawn is None or self._drawn[0] != number:
            self._catch_up()
            self._drawn = number, self._draw(number)
        return dict(self._drawn[1])

    def _draw(self, number: int) -> dict[str, Scalar]:
        if self._spec.sampler.name == "one_by_one":
            defaults = self._trials[0].params
            self._study.enqueue_trial(vary_one_by_one(self._spec, defaults)[number])
        seed = seed_for(self._spec.sampler.seed, number, "sampler")
        self._study.sampler = self._sampler(seed)
        return dict(self._study.ask(self._space).params)

    def _catch_up(self) -> None:
        """Tell Optuna what it has not heard of."""
        for trial in self._trials[self._known :]:
            if self._drawn is not None and self._drawn[0] == trial.number:
                self._open[trial.number] = 0  # it is there since it was drawn
            else:
                self._add(trial.params, _numbers(trial), trial.state)
                if trial.state is None:
                    self._open[trial.number] = trial.epoch
        self._known = len(self._trials)
        for number, known_epoch in list(self._open.items()):
            self._update(self._trials[number], known_epoch)

    def _update(self, trial: TrialRecord, known_epoch: int) -> None:
        there = self._before + trial.number
        if trial.epoch > known_epoch:
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(
                self._study._study_id, there
            )
            for epoch, value in _numbers(trial).items():
                if epoch > known_epoch:
                    self._storage.set_trial_intermediate_value(trial_id, epoch, value)
            self._open[trial.number] = trial.epoch
        if trial.state is not None:
            told = trial.value if trial.state == TrialState.COMPLETE else None
            self._study.tell(there, told, state=_STATES[trial.state])
            del self._open[trial.number]

    def _add(
        self, params: Mapping[str, Scalar], values: Mapping[int, float], state: TrialState | None
    ) -> None:
        """Add a trial with all that is known of it, as updates would leave it.

        Args:
            params: the trial's parameters.
            values: the objective by epoch, in ascending order, where it was a number.
            state: how it ended; None while it runs.
        """
        last = values[max(values)] if values else None
        has_value = state is not None and state.has_value
        trial = create_trial(
            state=_STATES[state],
            value=last if has_value else None,
            params=dict(params),
            distributions=self._space,
            intermediate_values=dict(values),
        )
        trial.distributions = self._space  # it has a plain dict with the same content
        self._study.add_trial(trial)

    def _sampler(self, seed: int) -> BaseSampler:
        if self._spec.sampler.name == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, **TPE_RULES)


def _numbers(trial: TrialRecord) -> dict[int, float]:
    """Return the objective by epoch, where it was a number."""
    return {epoch: value for epoch, value in trial.values.items() if value is not None}
