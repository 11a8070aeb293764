"""What a decision of the model of curves takes of the driver's loop, in processor time."""

from __future__ import annotations

import time

from support.paused_trials import many_trials

from posetune.study.search.curve_search import CurveSearch
from posetune.study.search.thaw import Thaw


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
