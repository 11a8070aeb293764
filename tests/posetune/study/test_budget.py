"""The budget: what counts, who may train on, and what is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from support.recording import Recording, World, draw_start, draw_world, record
from support.simulated_driver import open_unsynced, simulated_start

from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.history import read_history
from posetune.study.reading import list_sweeps, read_sweep
from posetune.study.search.rungs import Decision
from posetune.study.tables.database import Database

SWEEPS = 24


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Database]:
    opened = open_unsynced(tmp_path / "study.db")
    yield opened
    opened.close()


def named(sweep_start: SweepStart, name: str, **budget: float) -> SweepStart:
    spec = sweep_start.spec
    spec = spec.model_copy(update={"budget": spec.budget.model_copy(update=budget)})
    return dataclasses.replace(sweep_start, name=name, spec=spec)


def limit_s(sweep_start: SweepStart) -> float:
    hours = sweep_start.spec.budget.gpu_hours
    assert hours is not None
    return hours * 3600 / sweep_start.spec.resources.gpu


def draw(seed: int, **changes: float) -> tuple[SweepStart, World, int]:
    """A sweep file without a limit of hours, its world, and trials at a time."""
    generator = np.random.default_rng(seed)
    sweep_start = draw_start(generator)
    world = draw_world(sweep_start.spec, generator, **changes)
    return sweep_start, world, int(generator.integers(1, 7))


def capped(sweep_start: SweepStart, world: World, slots: int, *, seed: int) -> SweepStart:
    """With GPU-hours for one to five complete trials, after the first reports of all slots."""
    epochs = float(np.random.default_rng(seed).uniform(1.2, 5)) * sweep_start.spec.pruner.max_epochs
    limit = (epochs + 2 * slots) * 1.2 * world.epoch_s + (2 * slots + 1) * world.setup_s
    hours = limit * sweep_start.spec.resources.gpu / 3600
    return named(sweep_start, f"s{seed}", gpu_hours=hours, trials=80)


def crossing(recording: Recording, limit: float) -> float:
    """When the limit was reached."""
    times = sorted({time for _, begin, end in recording.held for time in (begin, end)})
    for before, after in pairwise(times):
        held = recording.held_s(after)
        if held >= limit:
            pace = (held - recording.held_s(before)) / (after - before)
            return before + (limit - recording.held_s(before)) / pace
    return np.inf


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_what_is_counted_is_what_attempts_held(study: Database, seed: int) -> None:
    sweep_start, world, slots = draw(seed, dying=0.1, failing=0.05)
    counted: list[float] = []

    def watch(run: SweepRun, _: Recording) -> bool:
        counted.append(run.state.ledger.held_s)
        return True

    recording = record(study, sweep_start, world, slots=slots, watch=watch)
    assert counted == sorted(counted)
    assert counted[-1] == pytest.approx(recording.held_s(), rel=1e-6)
    view = read_sweep(study, "s")
    assert view.gpu_hours == pytest.approx(recording.held_s() / 3600 * 0.5, rel=1e-6)
    assert view.trained_s < recording.held_s()  # setting up, and epochs trained again


@pytest.mark.slow
def test_the_limit_is_kept_and_the_leader_runs_to_its_end(study: Database) -> None:
    crossed = 0
    for seed in range(SWEEPS):
        sweep_start, world, slots = draw(seed, dying=0.01 * (seed % 3))
        sweep_start = capped(sweep_start, world, slots, seed=seed)
        recording = record(study, sweep_start, world, slots=slots)
        at = crossing(recording, limit_s(sweep_start))
        crossed += at < np.inf
        late = [trial for trial, when in recording.reports if when > at]
        assert len(late) == len(set(late)), f"seed {seed}: more than one report of a trial"
        assert all(begin <= at for _, begin, _ in recording.held), f"seed {seed}"
        view = read_sweep(study, sweep_start.name)
        assert view.promotable[0].state == "COMPLETE", f"seed {seed}"
        assert "the budget of" in view.stopped
        assert view.left_out.never_started == 80 - len(view.trials)
    assert crossed > SWEEPS / 8


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_killed_driver_is_followed_by_one_that_decides_the_same(
    study: Database, seed: int
) -> None:
    sweep_start, world, slots = draw(seed, dying=0.05)
    sweep_start = capped(sweep_start, world, slots, seed=seed)
    recording, events = Recording(), 0
    stood: list[tuple[float, object]] = []

    def watch(run: SweepRun, _: Recording) -> bool:
        nonlocal events
        events += 1
        leader = run.budget.leader
        stood.append((round(run.state.ledger.held_s, 6), leader and leader.number))
        return events % 17 != 0

    lives = 0
    while not read_state(study, sweep_start.name).startswith("the budget"):
        if stood:  # a driver was killed: the next one stands where it stood
            recording.now += 1.0
            again = SweepRun(study, sweep_start, clock=partial(getattr, recording, "now"))
            leader = again.budget.leader
            assert (round(again.state.ledger.held_s, 6), leader and leader.number) == stood[-1]
            again.lease.release()
        recording = record(study, sweep_start, world, slots=slots, recording=recording, watch=watch)
        lives += 1
    assert lives > 2
    view = read_sweep(study, sweep_start.name)
    assert (
        sum(trial.held_s for trial in view.trials)
        < limit_s(sweep_start) + slots * 3 * world.epoch_s
    )
    spent = SweepRun(study, sweep_start, clock=lambda: recording.now)
    assert spent.left
    assert not spent.may_start or spent.spent
    spent.lease.release()


def read_state(study: Database, name: str) -> str:
    found = {view.name: view.stopped for view in list_sweeps(study)}
    return found.get(name, "")


def test_the_time_between_two_drivers_is_not_counted(study: Database) -> None:
    """The first dies when an end was decided and not yet told."""
    now = 1000.0
    sweep_start = simulated_start(
        pruner={"max_epochs": 1}, resources={"gpu": 1}, budget={"trials": 2}
    )
    run = SweepRun(study, sweep_start, clock=lambda: now)
    trial = run.next_trial()
    assert trial is not None
    attempt = run.begin_attempt(trial.number)
    run.started(trial.number, attempt.number, facts={"setup_s": 10.0})
    now += 60
    report = {"epoch": 1, "metrics": {"loss": 1.0}, "seconds": 60.0, "checkpoint": None}
    assert run.report(trial.number, attempt.number, **report) == Decision.COMPLETE
    run.lease.release()
    now += 36_000
    again = SweepRun(study, sweep_start, clock=lambda: now)
    assert again.trials[0].state == "COMPLETE"
    assert again.state.ledger.held_s == 70
    again.lease.release()
    assert read_sweep(study, "s").trials[0].held_s == 70


@pytest.mark.slow
def test_a_larger_budget_takes_up_what_was_left(study: Database) -> None:
    sweep_start, world, slots = draw(2)
    sweep_start = capped(sweep_start, world, slots, seed=2)
    recording = record(study, sweep_start, world, slots=slots)
    before = read_sweep(study, sweep_start.name)
    assert before.left_out.open
    aside = {t.number for t in before.trials if t.reason.startswith("set aside by the budget")}
    assert aside
    assert aside <= set(before.left_out.open)
    told = [h.text for h in read_history(study, before.id)]
    assert f"trial {min(aside)} is set aside: the budget has no room for it now" in told
    hours = 4 * (sweep_start.spec.budget.gpu_hours or 0)
    record(
        study,
        named(sweep_start, sweep_start.name, gpu_hours=hours),
        world,
        slots=slots,
        recording=recording,
    )
    after = {trial.number: trial for trial in read_sweep(study, sweep_start.name).trials}
    assert all(after[n].state in ("COMPLETE", "PRUNED") for n in before.left_out.open)
    assert all(after[n].attempts > before.trials[n].attempts for n in aside)
    crashes = [
        trial.crashes
        for trial in SweepRun(study, named(sweep_start, sweep_start.name, gpu_hours=hours)).trials
    ]
    assert not any(crashes)


def test_without_gpus_the_same_seconds_count_once(study: Database) -> None:
    sweep_start, world, slots = draw(1)
    on_cpu = sweep_start.spec.model_copy(
        update={"resources": sweep_start.spec.resources.model_copy(update={"gpu": 0.0})}
    )
    recording = record(study, dataclasses.replace(sweep_start, spec=on_cpu), world, slots=slots)
    assert read_sweep(study, "s").gpu_hours == pytest.approx(recording.held_s() / 3600, rel=1e-6)


def test_hours_by_the_clock_end_a_sweep(study: Database) -> None:
    sweep_start, world, slots = draw(4)
    hours = 10 * world.epoch_s / 3600
    recording = record(study, named(sweep_start, "s", wall_hours=hours), world, slots=slots)
    assert recording.now == pytest.approx(hours * 3600, rel=0.5)
    assert "hours is spent" in read_sweep(study, "s").stopped
