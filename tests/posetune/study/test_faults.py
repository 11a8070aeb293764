"""What follows from an error, a death or a hand-over is decided by the study, and never twice."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState as OptunaState
from support.simulated_driver import (
    SimulatedTrial,
    happened,
    open_unsynced,
    outcome,
    simulated_start,
)

from posetune.study.decisions.decider import MAX_CRASHES
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.events import AttemptFailed, DriverClosed, TrialEnded
from posetune.study.faults import Fault, FaultKind
from posetune.study.search.rungs import Decision
from posetune.study.search.sampler import SearchMemory
from posetune.study.tables import schema
from posetune.study.tables.database import Database

NAME = Fault(
    FaultKind.CODE, "NameError", "model.py:20 in epoch", "NameError: no such name", "trace"
)
ELSEWHERE = Fault(FaultKind.CODE, "NameError", "model.py:31 in epoch", "NameError: no such name")
KILLED = Fault(FaultKind.CRASH, "died", "", "the worker was killed")
FULL = Fault(FaultKind.MEMORY, "OutOfMemoryError", "", "out of memory at batch 96 (CUDA ...)")
COLLAPSED = Fault(FaultKind.TOLD, "TrialFailedError", "health.py:9 in check", "collapsed")

Plan = Callable[[int, int], Fault | None]
"""What goes wrong in an epoch of a trial, by the numbers of both; None where nothing does."""


@pytest.fixture
def study(tmp_path: Path) -> Database:
    return open_unsynced(tmp_path / "study.db")


def begun(run: SweepRun) -> SimulatedTrial:
    trial = run.next_trial()
    assert trial is not None
    return SimulatedTrial(run, trial.number)


def drive(run: SweepRun, plan: Plan) -> None:
    """Run a sweep to its end as execution does, one trial at a time."""
    while (trial := run.next_trial()) is not None:
        under_way, decision = SimulatedTrial(run, trial.number), Decision.CONTINUE
        while decision == Decision.CONTINUE:
            fault = plan(trial.number, under_way.epoch + 1)
            if fault is None:
                decision = under_way.step()
            elif run.attempt_failed(trial.number, under_way.attempt, fault):
                under_way = SimulatedTrial(run, trial.number)
            else:
                break
    run.close(run.broken or "finished")


def opening(**budget: int | None) -> SweepStart:
    pruner = {"max_epochs": 9, "grace_epochs": 1}
    return simulated_start(pruner=pruner, budget={"trials": 14, **budget})


def test_one_death_with_two_answers_is_one_crash(study: Database) -> None:
    run = SweepRun(study, opening())
    trial = begun(run)
    for _ in range(2):
        assert run.attempt_failed(0, trial.attempt, KILLED)
    assert run.trials[0].crashes == 1
    assert run.begin_attempt(0).crashes == 1, "the next attempt does not count it again"


def test_a_trial_has_failed_with_its_fourth_crash(study: Database) -> None:
    run = SweepRun(study, opening())
    begun(run)
    tries = [run.attempt_failed(0, run.trials[0].attempt, KILLED)]
    while tries[-1]:
        run.begin_attempt(0)
        tries.append(run.attempt_failed(0, run.trials[0].attempt, KILLED))
    assert len(tries) == MAX_CRASHES
    assert run.trials[0].state == "FAILED"
    assert "its worker died 4 times, at last of: the worker was killed" in run.trials[0].reason


@pytest.mark.parametrize("fault", [NAME, COLLAPSED])
def test_an_error_of_the_code_and_a_collapse_are_not_tried_again(
    study: Database, fault: Fault
) -> None:
    run = SweepRun(study, opening())
    trial = begun(run)
    assert not run.attempt_failed(0, trial.attempt, fault)
    assert run.trials[0].state == "FAILED"
    assert fault.line in run.trials[0].reason


def test_a_trial_that_does_not_fit_is_tried_once_more_and_the_sampler_learns_of_it(
    study: Database,
) -> None:
    run = SweepRun(study, opening())
    first = begun(run)
    assert run.attempt_failed(0, first.attempt, FULL)
    assert run.trials[0].full_gpus == 1, "its next attempt has a GPU to itself"
    run.begin_attempt(0)
    assert not run.attempt_failed(0, 2, FULL)
    assert (run.trials[0].state, run.trials[0].crashes) == ("FAILED", 0)
    assert run.trials[0].reason.startswith("out of memory at batch 96")
    for memory in (run._memory, SearchMemory(run.spec, run.trials)):
        memory.ask(1)
        assert memory._study.trials[0].state == OptunaState.PRUNED


def test_a_hand_over_without_progress_counts_from_the_third_on(study: Database) -> None:
    run = SweepRun(study, opening())
    trial = begun(run)
    trial.step()
    attempts = 0
    goes_on = True
    while goes_on:
        saved = trial._checkpoint(1, partial_s=0.1 * attempts)
        goes_on = run.hand_over(0, trial.attempt, checkpoint=saved, reached=3, is_asked=False)
        attempts += 1
        if goes_on:
            trial = SimulatedTrial(run, 0)
    assert attempts == 1 + 2 + MAX_CRASHES  # one that got there, two that are free
    assert run.trials[0].state == "FAILED"
    assert "told to stop again and again" in run.trials[0].reason


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_hand_over_that_comes_further_or_was_asked_for_never_counts(
    study: Database, is_asked: bool
) -> None:
    run = SweepRun(study, opening())
    trial = begun(run)
    for attempt in range(20):
        saved = trial._checkpoint(0, partial_s=1.0)
        reached = 0 if is_asked else attempt
        assert run.hand_over(0, trial.attempt, checkpoint=saved, reached=reached, is_asked=is_asked)
        trial = SimulatedTrial(run, 0)
    assert run.trials[0].crashes == 0


def test_being_told_to_stop_where_nothing_can_be_saved_counts_from_the_third_on(
    study: Database,
) -> None:
    run = SweepRun(study, opening())
    begun(run)
    unsaved = Fault(FaultKind.TERMINATED, "SIGTERM", "", "told to stop")
    counted = []
    for attempt in range(1, 4):
        assert run.attempt_failed(0, attempt, unsaved)
        counted.append(run.begin_attempt(0).crashes)
    assert counted == [0, 0, 1]


# -- the breaker ---------------------------------------------------------------------------------


def test_the_sweep_ends_when_its_first_trials_to_fail_fail_alike(study: Database) -> None:
    """Trials that are cut before that epoch do not count: they cannot fail in it."""
    run = SweepRun(study, opening())
    drive(run, lambda trial, epoch: NAME if epoch == 3 else None)
    ends = happened(study, TrialEnded)
    assert [end.state for end in ends].count("FAILED") == 3
    assert "PRUNED" in [end.state for end in ends]
    assert [bool(end.stops_sweep) for end in ends] == [False] * (len(ends) - 1) + [True]
    assert "failed alike before the end of epoch 3" in run.broken
    assert "NameError: no such name (model.py:20 in epoch)" in run.broken
    assert (run.broken_trace, len(happened(study, AttemptFailed))) == ("trace", 3)


@pytest.mark.parametrize(
    ("plan", "budget"),
    [
        (lambda trial, epoch: NAME if trial and epoch == 3 else None, {}),
        (lambda trial, epoch: (ELSEWHERE if trial % 2 else NAME) if epoch == 3 else None, {}),
        (lambda trial, epoch: NAME if epoch == 3 else None, {"stop_after_failures": None}),
    ],
    ids=["one came past that epoch", "in two places", "it is not asked for"],
)
def test_otherwise_it_goes_on(study: Database, plan: Plan, budget: dict[str, None]) -> None:
    run = SweepRun(study, opening(**budget))
    drive(run, plan)
    assert run.broken == ""
    assert len(run.trials) == run.spec.budget.trials
    assert sum(end.state == "FAILED" for end in happened(study, TrialEnded)) >= 3


def test_the_same_command_again_goes_on_with_mended_code(study: Database) -> None:
    drive(SweepRun(study, opening()), lambda trial, epoch: NAME)
    again = SweepRun(study, opening())
    assert again.broken == ""
    drive(again, lambda trial, epoch: None)
    states = [trial.state for trial in again.trials]
    assert (states.count("FAILED"), len(states)) == (3, again.spec.budget.trials)


class Killed(BaseException):
    """A stand-in for SIGKILL: nothing of ours catches it."""


class KilledRun(SweepRun):
    """A driver that is killed after one of its events."""

    def __init__(self, database: Database, start: SweepStart, after: int) -> None:
        self.to_live = after
        super().__init__(database, start)

    def _commit(self, event: object) -> None:
        super()._commit(event)
        self.to_live -= 1
        if not self.to_live:
            raise Killed


def mixed(trial: int, epoch: int) -> Fault | None:
    """Each kind of fault, none of them in three trials alike."""
    found = {(1, 2): KILLED, (2, 1): FULL, (3, 1): NAME, (4, 2): COLLAPSED, (5, 1): ELSEWHERE}
    return found.get((trial, epoch))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    "plan", [mixed, lambda trial, epoch: NAME if epoch == 3 else None], ids=["mixed", "alike"]
)
def test_killed_after_any_event_a_sweep_with_faults_ends_the_same(
    tmp_path: Path, plan: Plan
) -> None:
    undisturbed = open_unsynced(tmp_path / "whole.db")
    drive(SweepRun(undisturbed, opening()), plan)
    expected, closed, at = outcome(undisturbed), False, 0
    while not closed:
        at += 1
        study = open_unsynced(tmp_path / f"{at}.db")
        with contextlib.suppress(Killed):
            drive(KilledRun(study, opening(), at), plan)
        closed = bool(happened(study, DriverClosed))
        if not closed:
            study.write(lambda connection: connection.execute(schema.lease.delete()))
            drive(SweepRun(study, opening()), plan)
        assert outcome(study) == expected, at
        study.close()
    events = happened(undisturbed, object)
    assert at == len(events) - 1, "after each event but the first, which no driver commits"
