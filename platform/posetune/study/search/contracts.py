"""What a sampler and a pruner must offer, ours or yours.

A sweep file names a registered class: `sampler: {name: package.module:Class}`, and `pruner` alike.
Registered it is as trainables are. It is made with the sweep and its trials, which change with the
sweep's events, and keeps nothing that does not follow from them: a driver that takes over makes
another one, and that has to answer the same. `posetune.testing.search_conformance` tests it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from posetune.spec.parameters import Scalar
from posetune.spec.registration import load_extension
from posetune.spec.sweep import SweepSpec
from posetune.study.search.rungs import Decision, RungVerdict
from posetune.study.search.space import Space, holds
from posetune.study.trials import TrialRecord

__all__ = ["NamedPruner", "NamedSampler", "Pruner", "Sampler"]


class Sampler(Protocol):
    """Proposes the parameters of new trials.

    One that a sweep file names is made as `Class(spec, trials)`.
    """

    def ask(self, number: int) -> dict[str, Scalar]:
        """Return the parameters of a trial, which is the next one.

        The answer is a function of the sweep's events in their order: it is the same when asked
        again, and in another process after a kill.

        Args:
            number: of the trial, from 1; trial 0 has the defaults.
        """


class Pruner(Protocol):
    """Decides after each report whether a trial goes on.

    One that a sweep file names is made as `Class(spec, trials)`.
    """

    def decide(self, trial: int, epoch: int, value: float | None) -> RungVerdict:
        """Decide of a report that is not recorded yet: CONTINUE or PRUNE, and perhaps why.

        Nothing may change by the question: it may be asked again, in another process.

        Args:
            trial: its number.
            epoch: 1 for the first; it is not asked after the last.
            value: the objective, or None where it was not a number.
        """


class NamedSampler:
    """A sampler that a sweep file names, held to the search space."""

    def __init__(self, spec: SweepSpec, trials: Sequence[TrialRecord]) -> None:
        self._name, self._search, self._trials = spec.sampler.name, spec.search, trials
        made = load_extension(self._name, "sampler", ["ask"])
        self._sampler: Sampler = made(spec, trials)
        self._space = Space(spec.search)

    def ask(self, number: int) -> dict[str, Scalar]:
        """Return what it proposes, or the nearest point that was not tried in a finite space.

        Raises:
            ValueError: it proposes what is not in the search space.
        """
        params = dict(self._sampler.ask(number))
        wrong = [n for n, p in self._search.items() if n not in params or not holds(p, params[n])]
        if wrong or params.keys() != self._search.keys():
            raise ValueError(f"sampler {self._name}: proposed {params}, not in the search space")
        if self._space.count is None:
            return params
        points = [trial.params for trial in self._trials if self._space.has(trial.params)]
        tried = {self._space.key(params) for params in points}
        return self._space.nearest_untried(params, tried)


class NamedPruner:
    """A pruner that a sweep file names."""

    def __init__(self, spec: SweepSpec, trials: Sequence[TrialRecord]) -> None:
        self._name, self._last = spec.pruner.name, spec.pruner.max_epochs
        self._pruner: Pruner = load_extension(self._name, "pruner", ["decide"])(spec, trials)

    def decide(self, trial: int, epoch: int, value: float | None) -> RungVerdict:
        """Return what it decides; after the last epoch a trial is complete.

        Raises:
            ValueError: it decides what only the platform can.
        """
        if epoch >= self._last:
            return RungVerdict(Decision.COMPLETE)
        verdict = self._pruner.decide(trial, epoch, value)
        if verdict.decision not in (Decision.CONTINUE, Decision.PRUNE):
            raise ValueError(f"pruner {self._name}: decided {verdict.decision}")
        is_cut = verdict.decision == Decision.PRUNE
        return RungVerdict(
            verdict.decision, why=verdict.why or f"by {self._name}" if is_cut else ""
        )
