"""Says at the end of a trial what the rest of its sweep is expected to gain.

What is found becomes part of the `TrialEnded` event, so nobody finds it again; the sweep ends once
that has been less than the noise between seeds often enough in a row (`budget.patience_over`).

Under the sampler `gp` its own model of curves is asked. Under another one a model of the same kind
sees the trials that have ended, in the order of their ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from posetune.study.records import ExpectedGain
from posetune.study.search.seed_noise import seed_noise
from posetune.study.search.space import Space
from posetune.study.search.start_from import prior_trials
from posetune.study.state import SweepState
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord

if TYPE_CHECKING:
    from posetune.study.search.curves.search import CurveSearch

__all__ = ["PatienceRule"]

FEWEST = 10
"""Trials that have ended before a gain is told; a model of fewer takes the first ones for typical.
The start values come first, too."""


class PatienceRule:
    """Estimates for one sweep what is still to gain."""

    def __init__(self, state: SweepState, curves: CurveSearch | None) -> None:
        """Estimate for a sweep as its state stands at each question.

        Args:
            state: the sweep; it changes with its events.
            curves: the model of the sweep's curves; None where its sampler has none.
        """
        self._state, self._curves = state, curves
        self._own: CurveSearch | None = None
        """A model of the trials that have ended, where the sampler has none."""
        self._order: list[int] = []
        """The trials that it knows, in the order of their ends."""
        self._log: list[tuple[int, int]] = []

    def gain_at(self, trial: TrialRecord, state: TrialState) -> ExpectedGain | None:
        """Return what is expected at the end of a trial, which is not recorded yet.

        None where nobody has asked for it (`budget.patience`), or too little is known.

        Args:
            trial: the trial.
            state: how it ends.
        """
        spec = self._state.spec
        fewest = max(FEWEST, spec.startup * spec.sampler.repeats)
        is_early = len(self._state.ended) + 1 < fewest
        if spec.budget.patience is None or not state.has_value or is_early:
            return None
        if not self._is_all_within():
            return None
        noise = seed_noise(self._state)
        if noise is None:
            return None
        open_trials = sorted(self._state.ledger.open - {trial.number})
        number = len(self._state.trials)
        new = self._state.most_trials - number
        if not (open_trials or new):
            return None  # nothing is left
        search = self._curves or self._model_with(trial)
        outlook = search.look([], first=open_trials)
        if outlook is None:
            return None
        from posetune.study.search.curves.gain import gain_of_rest

        gain = gain_of_rest(outlook, open_trials, number=number, new=new)
        return ExpectedGain(*gain, noise=noise.spread, noise_from=noise.source)

    def _is_all_within(self) -> bool:
        """Whether the model can see every trial; after an edit some may lie out of its bounds."""
        if self._state.edited is None:
            return True
        space = Space(self._state.spec.search)
        points = [trial.params for trial in self._state.trials]
        points += [trial.params for trial in prior_trials(self._state.prior)]
        return all(space.has(params) for params in points)

    def _model_with(self, trial: TrialRecord) -> CurveSearch:
        """Return the model that has seen the trials which have ended, and the one that ends now."""
        from posetune.study.search.curves.search import CurveSearch  # takes SciPy: a second

        ended = [*self._state.ended, trial.number]
        is_known = self._own is not None and ended[: len(self._order)] == self._order
        if self._own is None or not is_known:  # people have opened trials again
            self._order, self._log = [], []
            prior = prior_trials(self._state.prior)
            self._own = CurveSearch(self._state.spec, self._state.trials, self._log, prior)
        for number in ended[len(self._order) :]:
            one = self._state.trials[number]
            has_failed = one.state == TrialState.FAILED
            if has_failed or one.epoch:
                self._log.append((number, 0 if has_failed else one.epoch))
        self._order = ended
        return self._own
