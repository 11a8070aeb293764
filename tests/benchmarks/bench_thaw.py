"""What a decision of the model of curves takes of the driver's loop, in processor time."""

from __future__ import annotations

import time

from support.paused_trials import many_trials

from posetune.spec.sweep import SweepSpec
from posetune.study.decisions.patience_rule import PatienceRule
from posetune.study.search.curves.search import CurveSearch
from posetune.study.search.curves.thaw import Thaw
from posetune.study.state import SweepState
from posetune.study.states import TrialState


def test_a_decision_takes_less_than_50_ms_of_the_loop_at_a_thousand_trials() -> None:
    start, trials, log = many_trials(1000)
    search = CurveSearch(start.spec, trials, log)
    thaw = Thaw(search)
    paused = [trial.number for trial in trials if trial.is_paused]
    asked = {"paused": paused[:-1], "at_work": [paused[-1]], "next_number": len(trials)}
    asked["is_final"] = False
    report = (paused[-1], trials[paused[-1]].epoch, trials[paused[-1]].value)
    thaw.decide(*report, **asked)  # waits for the fit that is in force
    taken = []
    for _ in range(7):
        begun = time.thread_time()
        thaw.decide(*report, **asked)
        taken.append(time.thread_time() - begun)
    asks = []
    for _ in range(7):
        begun = time.thread_time()
        search.ask(len(trials))
        asks.append(time.thread_time() - begun)
    decision_ms, ask_ms = (1000 * sorted(times)[3] for times in (taken, asks))
    print(f"a decision {decision_ms:.0f} ms, an ask {ask_ms:.0f} ms, wanted below 50")
    assert max(decision_ms, ask_ms) < 50


def test_what_is_to_gain_takes_less_than_50_ms_of_the_loop_at_a_thousand_trials() -> None:
    """Also where the sampler has no model of its own, so that one sees the trials that ended."""
    start, trials, _ = many_trials(1000)
    content = {**start.spec.canonical(), "sampler": {"name": "tpe"}, "pruner": {"max_epochs": 27}}
    content["budget"] = {"trials": 2000, "patience": 5}
    state = SweepState(SweepSpec.model_validate(content))
    state.trials = trials
    state.finalists = ((1.0, 1.1, 1.2, 1.3),)
    for trial in trials:
        trial.paused, trial.state = 0, trial.state or TrialState.PRUNED
    state.ended = [trial.number for trial in trials[:-10]]
    rule = PatienceRule(state, None)
    taken = []
    for trial in trials[-10:]:
        begun = time.thread_time()
        assert rule.gain_at(trial, TrialState.PRUNED) is not None
        taken.append(time.thread_time() - begun)
        state.ended.append(trial.number)
    gain_ms = 1000 * sorted(taken)[5]
    print(f"a gain {gain_ms:.0f} ms, wanted below 50")
    assert gain_ms < 50
