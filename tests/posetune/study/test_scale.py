"""What a driver pays per trial does not grow with the trials (the full size: make bench)."""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from optuna.samplers import RandomSampler
from support.simulated_driver import SimulatedTrial, fill, open_unsynced
from support.simulated_driver import simulated_start as sweep_start

from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.search.sampler import SearchMemory
from posetune.study.states import TrialState
from posetune.study.tables.database import Database
from posetune.study.trials import TrialRecord


def calls(work: Callable[[], object]) -> int:
    """How many functions the work calls: what it costs, on any machine."""
    made = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return made


def report_calls(run: SweepRun, reports: int = 60) -> float:
    """The median cost of a report that reaches the first rung, where most values are."""
    found = []
    for _ in range(reports):
        trial = run.next_trial()
        assert trial is not None
        slot = SimulatedTrial(run, trial.number)
        found.append(calls(partial(slot.step, {"loss": 1e6})))  # cut at once
    return statistics.median(found)


def reopen(database: Database, start: SweepStart) -> tuple[SweepRun, float]:
    """Open a sweep again; also return how many functions that calls for each of its events."""
    opened: list[SweepRun] = []
    made = calls(lambda: opened.append(SweepRun(database, start)))
    opened[0].lease.release()
    return opened[0], made / opened[0].state.seq


@pytest.mark.long
@pytest.mark.slow
def test_an_event_costs_the_same_after_a_thousand_trials_as_after_a_hundred(
    tmp_path: Path,
) -> None:
    """When it is reported, and when it is read; seconds and memory are measured by `make bench`."""
    database = open_unsynced(tmp_path / "study.db")
    wanted = sweep_start(budget={"trials": 2000}, pruner={"max_epochs": 9})
    few = replace(wanted, name="small")
    small, run = SweepRun(database, few), SweepRun(database, wanted)
    for sweep in (small, run):  # TPE's asks are the bench's
        sweep._memory._sampler = lambda seed: RandomSampler(seed=seed)
    fill(small, 100, random.Random(0))
    fill(run, 1000, random.Random(0))
    assert report_calls(run) < 1.1 * report_calls(small)
    small.lease.release()
    run.lease.release()
    _, early = reopen(database, few)
    again, late = reopen(database, wanted)
    assert late < 1.1 * early
    assert [replace(t, holding=None) for t in again.trials] == [
        replace(t, holding=None) for t in run.trials
    ]


def test_a_memory_rebuilt_at_once_equals_the_one_that_was_lived() -> None:
    spec = sweep_start().spec
    trials: list[TrialRecord] = []
    lived = SearchMemory(spec, trials)
    generator = random.Random(0)
    for number in range(40):
        params = lived.ask(number)
        assert lived.ask(number) == params, "the same until the trial is there"
        trials.append(TrialRecord(number, params, seed=0))
        for trial in trials:
            if trial.state is None and generator.random() < 0.5:
                change(trial, generator)
        rebuilt = SearchMemory(spec, trials)
        assert lived.ask(number + 1) == rebuilt.ask(number + 1)
        same = ("state", "values", "params", "intermediate_values", "distributions")
        for one, other in zip(lived._study.trials, rebuilt._study.trials, strict=True):
            assert all(getattr(one, name) == getattr(other, name) for name in same)


def change(trial: TrialRecord, generator: random.Random) -> None:
    """Some reports, and perhaps an end."""
    for _ in range(generator.randint(1, 3)):
        trial.epoch += 1
        trial.value = generator.choice([None, generator.random(), generator.random()])
        trial.values[trial.epoch] = trial.value
    if generator.random() < 0.5:
        has_value = trial.value is not None
        ends = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED]
        trial.state = generator.choice(ends if has_value else [TrialState.FAILED])
