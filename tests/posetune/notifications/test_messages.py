"""Which events are worth a message, and what it says."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.simulated_driver import simulated_start

from posetune.notifications.messages import Message, Narrator
from posetune.study.act_events import SweepHeld
from posetune.study.events import (
    AttemptBegun,
    DriverClosed,
    DriverOpened,
    Event,
    Reported,
    RoomAwaited,
    SweepStarted,
    TrialAsked,
    TrialEnded,
)
from posetune.study.forecasting.forecast import Forecast, Interval
from posetune.study.search.rungs import Decision
from posetune.study.states import TrialState

BUDGET = {"trials": 2, "gpu_hours": 10.0}


def narrator(**changes: Any) -> Narrator:
    spec = simulated_start(**{"budget": BUDGET, **changes}).spec
    told = Narrator("s", 100.0, spec)
    told.take(SweepStarted(100.0, 2))
    told.take(DriverOpened(100.0, spec.budget.model_dump(), {}))
    return told


def ran(trial: int, *values: float, state: TrialState | None = TrialState.COMPLETE) -> list[Event]:
    """The events of a trial that reports values."""
    found: list[Event] = [
        TrialAsked(101.0, trial, {"x": 1.0, "depth": 8}, 0),
        AttemptBegun(101.0, trial, 1, 0),
    ]
    for epoch, value in enumerate(values, start=1):
        found.append(Reported(102.0, trial, 1, epoch, value, Decision.CONTINUE, 1.0))
    if state is not None:
        last = values[-1] if values else None
        reason = "diverged" if state == TrialState.FAILED else ""
        found.append(TrialEnded(103.0, trial, state, len(values), last, reason))
    return found


def told(follower: Narrator, *given: Event) -> list[Message]:
    return [message for event in given for message in follower.take(event)]


def test_a_better_value_is_a_new_best_and_a_worse_one_is_not() -> None:
    first, second = told(narrator(), *ran(0, 5.0, 6.0, 4.0))

    assert (first.event, second.event) == ("new_best", "new_best")
    assert second.text == "sweep s: new best: loss 4, of trial 0 at epoch 3"
    assert second.data == {"trial": 0, "epoch": 3, "metric": "loss", "value": 4.0}
    assert re.fullmatch(r"s-[0-9a-f]{8}/7/new_best", second.id)


def test_a_trial_that_fails_is_told_with_its_reason() -> None:
    (failed,) = told(narrator(), *ran(0, state=TrialState.FAILED))

    assert failed.event == "failed"
    assert failed.text == "sweep s: trial 0 failed at epoch 0: diverged"


@pytest.mark.parametrize(
    ("trials", "reason", "text"),
    [
        (
            [ran(0, 5.0), ran(1, 4.5)],
            "finished",
            "it has ended: 2 of 2 trials ended; loss 4.5, of trial 1 at epoch 1",
        ),
        (
            [ran(0, state=TrialState.FAILED), ran(1, state=TrialState.FAILED)],
            "finished",
            "it has ended, and every one of its 2 trials failed",
        ),
        (
            [ran(0, 5.0), ran(1, state=None)],
            "gpu_hours is spent",
            "its driver stopped (gpu_hours is spent): 1 of 2 trials ended; loss 5, of trial 0 at "
            "epoch 1",
        ),
    ],
)
def test_the_end_says_how_it_ended(trials: list[list[Event]], reason: str, text: str) -> None:
    given = [event for trial in trials for event in trial]
    *_, ended = told(narrator(), *given, DriverClosed(110.0, reason))

    assert (ended.event, ended.text) == ("ended", f"sweep s: {text}")


def test_a_driver_that_finds_nothing_to_do_is_not_told() -> None:
    follower = narrator()
    told(follower, *ran(0, 5.0), *ran(1, 4.5), DriverClosed(110.0, "finished"))

    assert told(follower, DriverOpened(120.0, BUDGET, {}), DriverClosed(121.0, "finished")) == []


def test_a_wait_of_ten_minutes_is_told_once_while_it_lasts_or_after() -> None:
    follower = narrator()
    assert told(follower, RoomAwaited(1000.0, "gpu 1: no node has it")) == []
    assert follower.overdue(1599.0) == []
    (live,) = follower.overdue(1600.0)
    (late,) = told(follower, RoomAwaited(5000.0, ""))

    assert live == late
    assert live.text == "sweep s: no trial has found a place for 10 min: gpu 1: no node has it"
    assert follower.overdue(9000.0) == []


def test_a_short_wait_and_one_of_which_nobody_knows_the_end_are_not_told() -> None:
    follower = narrator()
    short = told(follower, RoomAwaited(1000.0, "gpu 1"), RoomAwaited(1500.0, ""))
    unknown = told(follower, RoomAwaited(2000.0, "gpu 1"), DriverOpened(9000.0, BUDGET, {}))

    assert (short, unknown) == ([], [])
    assert follower.overdue(10_000.0) == []


def expected(hours: float) -> Forecast:
    held = Interval(0.5 * hours * 3600, hours * 3600, 2 * hours * 3600)
    return Forecast(held, held, held, {}, reports=1, driven_s=0.0)


def test_a_forecast_of_four_fifths_of_a_limit_is_told() -> None:
    follower = narrator()

    assert follower.over_budget(expected(7.9), 200.0) == []
    (message,) = follower.over_budget(expected(8.0), 200.0)
    (again,) = follower.over_budget(expected(9.0), 300.0)
    assert message.text == "sweep s: its forecast is 8 gpu-hours, of the 10 that it may take"
    assert message.id == again.id
    assert message.id.endswith("/gpu_hours/budget")


def test_a_sweep_that_stops_itself_or_is_held_is_told() -> None:
    why = "the first 3 trials to fail have failed alike"
    end = TrialEnded(1.0, 0, TrialState.FAILED, 0, None, "a NameError", stops_sweep=why)
    asked = TrialAsked(0.5, 0, {"x": 1.0, "depth": 8}, 0)
    failed, breaker, held = told(narrator(), asked, end, SweepHeld(2.0, "ana@lab"))

    assert (failed.event, breaker.event, held.event) == ("failed", "breaker", "held")
    assert breaker.text == f"sweep s: it stopped itself: {why}"
    assert held.data["by"] == "ana@lab"
