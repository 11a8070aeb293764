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
from support.simulated_driver import simulated_opening as opening

from posetune.study.sampler import SearchMemory
from posetune.study.sweep import SweepRun


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


@pytest.mark.slow
def test_a_report_costs_the_same_after_a_thousand_trials_as_after_a_hundred(
    tmp_path: Path,
) -> None:
    """Its seconds, and the driver's memory, are measured by `make bench`."""
    database = open_unsynced(tmp_path / "study.db")
    wanted = opening(budget={"trials": 2000}, pruner={"max_epochs": 9})
    small, run = SweepRun(database, replace(wanted, name="small")), SweepRun(database, wanted)
    for sweep in (small, run):  # TPE's asks are the bench's
        sweep._memory._sampler = lambda seed: RandomSampler(seed=seed)
    fill(small, 100, random.Random(0))
    fill(run, 1000, random.Random(0))
    early, late = report_calls(small), report_calls(run)
    print(early, late)
    assert late < 1.1 * early
    small.lease.release()
    run.lease.release()
    again = SweepRun(database, wanted)
    again.lease.release()
    for trial in again.trials:
        again.release_checkpoints(trial.number)  # as a driver does at once
    assert [vars(t) for t in again.trials] == [vars(t) for t in run.trials]


def test_a_memory_rebuilt_at_once_equals_the_one_that_was_lived() -> None:
    spec = opening().spec
    lived, rebuilt = SearchMemory(spec), SearchMemory(spec)
    generator = random.Random(0)
    for number in range(40):
        params = lived.ask(number)
        state = generator.choice(["COMPLETE", "PRUNED", "FAILED", None])
        epochs = range(1, generator.randint(1 if state in ("COMPLETE", "PRUNED") else 0, 5) + 1)
        values = {epoch: generator.random() for epoch in epochs}
        for epoch, value in values.items():
            lived.report(number, epoch, value)
        lived.report(number, 9, None)
        if state is not None:
            lived.tell(number, state, values.get(len(values)))
        rebuilt.add(params, values, state)
        same = ("state", "values", "params", "intermediate_values", "distributions")
        for one, other in zip(lived._study.trials, rebuilt._study.trials, strict=True):
            assert all(getattr(one, name) == getattr(other, name) for name in same)
    assert [lived.ask(40), lived.ask(41)] == [rebuilt.ask(40), rebuilt.ask(41)]
