"""What a driver pays per trial does not grow with the trials (the full size: make bench)."""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.samplers import RandomSampler
from support.simulated_driver import SimulatedTrial, fill, open_unsynced
from support.simulated_driver import simulated_opening as opening

from posetune.study.sampler import SearchMemory
from posetune.study.sweep import SweepRun


def resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise LookupError("VmRSS")


def report_seconds(*runs: SweepRun, reports: int = 60) -> list[float]:
    """The median cost of a report that reaches the first rung, where most values are.

    The sweeps take turns, so that a machine that is busy for a while is so for all.
    """
    taken: dict[str, list[float]] = {run.name: [] for run in runs}
    for _ in range(reports):
        for run in runs:
            trial = run.next_trial()
            assert trial is not None
            slot = SimulatedTrial(run, trial.number)
            started = time.perf_counter()
            slot.step({"loss": 1e6})  # cut at once
            taken[run.name].append(time.perf_counter() - started)
    return [statistics.median(found) for found in taken.values()]


@pytest.mark.slow
def test_a_thousand_trials_cost_ten_times_a_hundred(tmp_path: Path) -> None:
    database = open_unsynced(tmp_path / "study.db")
    wanted = opening(budget={"trials": 2000}, pruner={"max_epochs": 9})
    small, run = SweepRun(database, replace(wanted, name="small")), SweepRun(database, wanted)
    for sweep in (small, run):  # TPE's asks are the bench's
        sweep._memory._sampler = lambda seed: RandomSampler(seed=seed)
    fill(small, 100, random.Random(0))
    resident = resident_bytes()
    fill(run, 1000, random.Random(0))
    assert resident_bytes() - resident < 20_000 * 1000
    early, late = report_seconds(small, run)
    assert late < 2 * early
    small.lease.release()
    run.lease.release()
    started = time.process_time()
    again = SweepRun(database, wanted)
    opened = time.process_time() - started
    again.lease.release()
    for trial in again.trials:
        again.release_checkpoints(trial.number)  # as a driver does at once
    assert [vars(t) for t in again.trials] == [vars(t) for t in run.trials]
    assert opened < 1.0


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
