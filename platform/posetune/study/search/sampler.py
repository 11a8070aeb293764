"""Draws parameters with Optuna's sampler, from the trials of a sweep's state.

Optuna's own study is a cache: before each draw it is brought up to the trials as the events have
left them. A sampler reopened with the same seed would repeat its first draws, so every draw has a
sampler of its own, seeded by (sweep seed, trial number); all parameters of a trial are drawn at
once. The draws are then a function of the events alone, and a killed sweep continues with the same
ones.

In a finite space no point is drawn twice: the sampler is asked again, with another seed, and if it
insists, the nearest point is taken that was not tried. Numbers of a choice are told to Optuna as
their ranks, so that TPE knows that neighbours are alike. A trial that runs on only to show what
cutting costs is told as cut. Sweeps that were begun before (`events.POINTS_ONCE_SINCE`) keep the
ways of then.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from datetime import datetime
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
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from posetune.spec.loading import vary_one_by_one
from posetune.spec.parameters import Choice, FloatRange, IntRange, Scalar
from posetune.spec.sweep import SweepSpec
from posetune.study.events import POINTS_ONCE_SINCE, SEMANTICS
from posetune.study.faults import FaultKind
from posetune.study.search.belief import Belief
from posetune.study.search.seeding import seed_for
from posetune.study.search.space import Key, Space
from posetune.study.search.start_from import PriorTrial, prior_trials
from posetune.study.search.startup import start_values
from posetune.study.state import SweepState
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord

__all__ = ["SearchMemory", "distributions", "search_memory"]


TPE_RULES: dict[str, Any] = {
    "n_startup_trials": 10,
    "n_ei_candidates": 24,
    "multivariate": True,
    "constant_liar": True,
}
"""TPE's settings: the defaults of Optuna 5, spelt out. Sweeps of today have their own number of
start values (`SweepSpec.startup`)."""

DRAWS = 10
"""How often the sampler is asked for a point that was not tried, before the nearest is taken."""

_STATES = {
    None: OptunaState.RUNNING,
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
    # Why a person stopped it is not known, so nothing is learned from it.
    TrialState.STOPPED: OptunaState.FAIL,
}


def distributions(spec: SweepSpec) -> dict[str, BaseDistribution]:
    """Return the search space in Optuna's terms, in the file's order."""
    return {name: _distribution(parameter) for name, parameter in spec.search.items()}


def _distribution(parameter: FloatRange | IntRange | Choice) -> BaseDistribution:
    if isinstance(parameter, FloatRange):
        low, high = parameter.corners
        return FloatDistribution(low, high, log=parameter.log, step=parameter.step)
    if isinstance(parameter, IntRange):
        first, last = parameter.corners
        return IntDistribution(int(first), int(last), log=parameter.log, step=parameter.step)
    return CategoricalDistribution(parameter.values)


def _ranked(parameter: FloatRange | IntRange | Choice) -> BaseDistribution:
    """Return a parameter in Optuna's terms, with the ranks of the numbers of a choice."""
    if isinstance(parameter, Choice) and parameter.is_ordered:
        return IntDistribution(0, len(parameter.values) - 1)
    return _distribution(parameter)


def search_memory(state: SweepState) -> SearchMemory:
    """Return what Optuna knows of a sweep as it stands; an edit may have given it other bounds."""
    prior = prior_trials(state.prior)
    if state.edited is not None:
        space = Space(state.spec.search)
        prior = [trial for trial in prior if space.has(trial.params)]
    return SearchMemory(
        state.spec,
        state.trials,
        prior,
        semantics=state.semantics,
        audited=state.rungs.audited,
        is_edited=state.edited is not None,
    )


class _ToldTrial(FrozenTrial):
    """A trial as Optuna is told of it.

    Optuna's storage copies every trial that is added to it deeply, and later changes only copies of
    what it holds. So a shallow copy does, and 10,000 trials are told in a third of the time.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> _ToldTrial:
        return copy.copy(self)


class SearchMemory:
    """What Optuna knows of a sweep: its trials with their parameters, reports and ends.

    Trials are numbered from 0 without holes; in Optuna those of other sweeps come before them.
    """

    def __init__(
        self,
        spec: SweepSpec,
        trials: Sequence[TrialRecord],
        prior: Sequence[PriorTrial] = (),
        *,
        semantics: int = SEMANTICS,
        audited: Mapping[int, int] | None = None,
        is_edited: bool = False,
    ) -> None:
        """Begin with the trials of other sweeps that are to be learned from.

        Args:
            spec: the sweep.
            trials: its trials; they change with its events.
            prior: trials of other sweeps within its search space.
            semantics: which rules the sweep was begun with; see `events.SEMANTICS`.
            audited: the trials that run on where ASHA would have cut them, and at which epoch; they
                change with the events, too.
            is_edited: whether a person has changed its bounds; trials may then lie outside of them.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._spec, self._trials, self._is_edited = spec, trials, is_edited
        self._is_today = semantics >= POINTS_ONCE_SINCE
        self._audited = audited if audited is not None and self._is_today else {}
        self._points = Space(spec.search)
        self._tried: set[Key] = set()
        """The points of the sweep's own trials, where the space is finite."""
        self._ranks: dict[str, list[Scalar]] = {}
        """The numbers of each choice that is told by rank, in their order."""
        self._space = self._told_space()
        self._storage = InMemoryStorage()
        self._study = optuna.create_study(direction=spec.objective.direction, storage=self._storage)
        self._there: list[int] = []
        """The number of each trial in Optuna's study, where draws that were refused stand too."""
        self._open: dict[int, int] = {}
        """The trials whose end Optuna has not heard of, and after which epoch it knows them."""
        self._count = 0
        """How many trials Optuna's study has."""
        self._ended = 0
        """How many trials it knows that have ended with a value."""
        self._drawn: tuple[int, dict[str, Scalar], int | None] | None = None
        """The trial that was drawn last, its parameters, and its number in Optuna's study."""
        for trial in prior:
            self._add(trial.params, trial.values, trial.state)
        self._catch_up()  # now, not at the first draw, which a free slot waits for

    def ask(self, number: int) -> dict[str, Scalar]:
        """Draw the next trial's parameters; the same ones until the trial is recorded."""
        if self._drawn is None or self._drawn[0] != number:
            self._catch_up()
            self._drawn = number, *self._draw(number)
        return dict(self._drawn[1])

    def _draw(self, number: int) -> tuple[dict[str, Scalar], int | None]:
        """Return a trial's parameters, and its number in Optuna's study where that drew them."""
        if self._spec.sampler.name == "one_by_one":
            return vary_one_by_one(self._spec, self._trials[0].params)[number], None
        if self._is_today and self._spec.sampler.name == "tpe" and self._ended < self._startup:
            seed, count = self._spec.sampler.seed, max(1, number)
            values = start_values(self._points, seed, count, Belief(self._spec))
            return self._untried(values[-1]), None
        params, there = self._ask_optuna(number)
        for again in range(1, DRAWS):
            if not self._is_tried(params):
                return params, there
            self._study.tell(there, state=OptunaState.FAIL)  # Optuna's samplers pass over it
            params, there = self._ask_optuna(number, again)
        if not self._is_tried(params):
            return params, there
        self._study.tell(there, state=OptunaState.FAIL)
        return self._untried(params), None

    @property
    def _startup(self) -> int:
        return self._spec.startup * self._spec.sampler.repeats

    def _ask_optuna(self, number: int, again: int = 0) -> tuple[dict[str, Scalar], int]:
        purpose = f"sampler {again}" if again else "sampler"
        self._study.sampler = self._sampler(seed_for(self._spec.sampler.seed, number, purpose))
        asked = self._study.ask(self._space)
        self._count += 1
        for name, parameter in self._spec.search.items():
            if isinstance(parameter, FloatRange) and parameter.step is not None:
                # Optuna computes the grid in floats; it shall know the values as they are recorded.
                value = parameter.nearest(asked.params[name])
                self._storage.set_trial_param(asked._trial_id, name, value, self._space[name])
        params = self._storage.get_trial(asked._trial_id).params
        return self._from_optuna(params), asked.number

    def _is_tried(self, params: Mapping[str, Scalar]) -> bool:
        return bool(self._tried) and self._points.key(params) in self._tried

    def _untried(self, params: dict[str, Scalar]) -> dict[str, Scalar]:
        if not self._is_tried(params):
            return params
        return self._points.nearest_untried(params, self._tried)

    # -- what Optuna is told -----------------------------------------------------------------------

    def _told_space(self) -> dict[str, BaseDistribution]:
        if not self._is_today:
            return distributions(self._spec)
        for name, parameter in self._spec.search.items():
            if isinstance(parameter, Choice) and parameter.is_ordered:
                self._ranks[name] = sorted(parameter.values, key=float)
        return {name: _ranked(p) for name, p in self._spec.search.items()}

    def _to_optuna(self, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
        ranked = {name: values.index(params[name]) for name, values in self._ranks.items()}
        return {**params, **ranked}

    def _from_optuna(self, params: Mapping[str, Any]) -> dict[str, Scalar]:
        numbers = {name: values[params[name]] for name, values in self._ranks.items()}
        return {**params, **numbers}

    def _catch_up(self) -> None:
        """Tell Optuna what it has not heard of."""
        for trial in self._trials[len(self._there) :]:
            if self._is_edited and not self._points.has(trial.params):
                self._there.append(self._add_failed())
                continue
            if self._is_today and self._points.count is not None:
                self._tried.add(self._points.key(trial.params))
            drawn, self._drawn = self._drawn, None
            if drawn is not None and drawn[0] == trial.number and drawn[2] is not None:
                self._there.append(drawn[2])
                self._open[trial.number] = 0  # it is there since it was drawn
                continue
            state, values = self._known(trial)
            self._there.append(self._add(trial.params, values, state))
            if state is None:
                self._open[trial.number] = trial.epoch
        for number, known_epoch in list(self._open.items()):
            self._update(self._trials[number], known_epoch)

    def _update(self, trial: TrialRecord, known_epoch: int) -> None:
        there = self._there[trial.number]
        state, values = self._known(trial)
        if trial.epoch > known_epoch:
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(
                self._study._study_id, there
            )
            for epoch, value in values.items():
                if epoch > known_epoch:
                    self._storage.set_trial_intermediate_value(trial_id, epoch, value)
            self._open[trial.number] = trial.epoch
        if state is not None:
            told = values[max(values)] if state == TrialState.COMPLETE else None
            self._study.tell(there, told, state=_STATES[state])
            self._ended += state.has_value
            del self._open[trial.number]

    def _add(
        self, params: Mapping[str, Scalar], values: Mapping[int, float], state: TrialState | None
    ) -> int:
        """Add a trial with all that is known of it, as updates would leave it.

        Args:
            params: the trial's parameters.
            values: the objective by epoch, in ascending order, where it was a number.
            state: how it ended; None while it runs.

        Returns:
            Its number in Optuna's study.
        """
        last = values[max(values)] if values else None
        has_value = state is not None and state.has_value
        self._ended += has_value
        now = datetime.now()  # Optuna asks for times, and nothing reads them
        told = _ToldTrial(
            number=-1,  # the storage numbers it
            trial_id=-1,
            state=_STATES[state],
            value=last if has_value else None,
            datetime_start=now,
            datetime_complete=None if state is None else now,
            params=self._to_optuna(params),
            distributions=self._space,
            user_attrs={},
            system_attrs={},
            intermediate_values=dict(values),
        )
        self._study.add_trial(told)
        self._count += 1
        return self._count - 1

    def _add_failed(self) -> int:
        """Add a trial that teaches nothing, and return its number in Optuna's study."""
        self._study.add_trial(create_trial(state=OptunaState.FAIL))
        self._count += 1
        return self._count - 1

    def _known(self, trial: TrialRecord) -> tuple[TrialState | None, dict[int, float]]:
        """Return how a trial ended and the objective by epoch, as far as they teach the sampler.

        An audited trial was cut. What an extended one reports beyond its first end teaches nothing:
        no other trial has as many epochs. Where the objective was not a number, it is left out.
        Optuna learns nothing from a trial that failed; but one that does not fit into the GPU's
        memory says something of its parameters: it counts as cut, and without a value as worse than
        all others.
        """
        state, last = trial.taught or (trial.state, trial.epoch)
        is_too_large = trial.fault is not None and trial.fault.kind == FaultKind.MEMORY
        if state == TrialState.FAILED and is_too_large:
            state = TrialState.PRUNED
        if trial.number in self._audited and trial.taught is None:
            state, last = TrialState.PRUNED, self._audited[trial.number]
        known = {e: value for e, value in trial.values.items() if value is not None and e <= last}
        return state, known

    def _sampler(self, seed: int) -> BaseSampler:
        if self._spec.sampler.name == "random":
            return RandomSampler(seed=seed)
        startup = {"n_startup_trials": 1} if self._is_today else {}
        return TPESampler(seed=seed, **{**TPE_RULES, **startup})
