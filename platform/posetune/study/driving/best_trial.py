"""Says which trial of a sweep under way is the best, ranked as the finished sweep will be."""

from __future__ import annotations

from posetune.study.repeats import rank_trials
from posetune.study.state import SweepState
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord

__all__ = ["best_trial"]


def best_trial(state: SweepState) -> TrialRecord | None:
    """Return the best trial of a sweep; None while none has a value.

    It may be called by any thread while the driver's adds trials.
    """
    objective = state.spec.objective
    if objective.select == "best":
        if state.spec.sampler.repeats > 1:
            return _best_point(state)
        return state.trials[state.leading[0]] if state.leading else None
    judged = [
        trial
        for trial in list(state.trials)
        if trial.value is not None and trial.state != TrialState.FAILED
    ]
    return min(judged, key=lambda trial: trial.place(objective), default=None)


def _best_point(state: SweepState) -> TrialRecord | None:
    """Return the best trial of the point with the best mean."""
    trials, spec = list(state.trials), state.spec
    values = {trial.number: trial.best.value for trial in trials if trial.best is not None}
    ended = {trial.number for trial in trials if trial.state is not None}
    order = rank_trials(values, ended, sign=spec.objective.sign, repeats=spec.sampler.repeats)
    return trials[order[0]] if order else None
