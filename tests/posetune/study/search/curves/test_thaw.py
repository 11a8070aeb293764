"""Pausing trials: which go on, what becomes of the others, and what a decision takes."""

from __future__ import annotations

import dataclasses
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paused_trials import many_trials
from support.recording import draw_start, draw_world, record
from support.simulated_driver import (
    SimulatedTrial,
    drive,
    happened,
    open_unsynced,
    simulated_start,
)

from posetune.study import events
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.reading import read_sweep
from posetune.study.search.curves.search import CurveSearch
from posetune.study.search.rungs import Decision, rung_epochs
from posetune.study.states import TrialState

SEARCH = {"x": {"choice": [0.1, 0.3, 0.7, 1.0, 3.0]}, "depth": {"int": [2, 16], "step": 2}}


def thawing(**changes: Any) -> SweepStart:
    content = {"search": SEARCH, "pruner": {"name": "thaw", "max_epochs": 9}, **changes}
    start = simulated_start(**content)
    return dataclasses.replace(start, defaults={"x": 1.0, "depth": 8})


def test_its_model_proposes_points_and_its_rungs_come_early() -> None:
    spec = thawing().spec
    assert (spec.sampler.name, spec.startup) == ("gp", 4)
    spec = simulated_start(pruner={"name": "thaw", "max_epochs": 27}).spec
    assert rung_epochs(spec.pruner) == [3, 6, 12, 24]
    with pytest.raises(ValueError, match="give sampler"):
        simulated_start(pruner={"name": "thaw", "max_epochs": 9}, sampler={"name": "tpe"})


@pytest.mark.parametrize("slots", [1, 3])
def test_every_trial_ends_and_the_best_runs_to_its_end(tmp_path: Path, slots: int) -> None:
    database = open_unsynced(tmp_path / "study.db")
    drive(database, thawing(), slots=slots, order=random.Random(slots))
    view = read_sweep(database, "s")
    assert view.state == "COMPLETE"
    assert {trial.state for trial in view.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert view.best is not None
    assert view.best.state == TrialState.COMPLETE
    assert view.best.params == {"x": 0.7, "depth": 6}
    cut = [trial.reason for trial in view.trials if trial.state == TrialState.PRUNED]
    assert cut
    assert all("so it wins with less than 1%" in reason for reason in cut)
    paused = [e for e in happened(database, events.Reported) if e.decision == Decision.PAUSE]
    assert any(view.trials[e.trial].epochs > e.epoch for e in paused), "one went on later"
    reports = sum(trial.epochs for trial in view.trials)
    assert reports < 0.75 * 9 * len(view.trials)


def test_the_first_trials_are_paused_until_there_are_enough_to_compare(tmp_path: Path) -> None:
    run = SweepRun(open_unsynced(tmp_path / "study.db"), thawing())
    for number in range(4):
        trial = run.next_trial()
        assert trial is not None
        assert trial.number == number
        decision = SimulatedTrial(run, number).step()
        assert number == 3 or decision == Decision.PAUSE
    assert run.trials[3].why != run.trials[2].why
    assert run.state.paused[:3] == [0, 1, 2]
    assert run.trials[0].why == "4 trials begin before any goes on"
    run.lease.release()


def test_why_a_trial_is_paused_says_what_is_expected_of_it_and_what_goes_on(
    tmp_path: Path,
) -> None:
    database = open_unsynced(tmp_path / "study.db")
    drive(database, thawing())
    reasons = [e.why for e in happened(database, events.Reported) if e.decision == Decision.PAUSE]
    told = [why for why in reasons if "begin before" not in why]
    assert told
    pattern = (
        r"expected to end at (\S+) \((\S+) to (\S+)\); "
        r"(trial \d+ goes on|new parameters are tried) \((\S+)\)"
    )
    for why in told:
        found = re.fullmatch(pattern, why)
        assert found, why
        assert float(found[2]) <= float(found[1]) <= float(found[3])


def test_a_paused_trial_keeps_its_newest_two_checkpoints_and_the_best(tmp_path: Path) -> None:
    database = open_unsynced(tmp_path / "study.db")
    start = thawing(pruner={"name": "thaw", "max_epochs": 9, "grace_epochs": 4})
    run = SweepRun(database, dataclasses.replace(start))
    trial = run.next_trial()
    assert trial is not None
    at_work = SimulatedTrial(run, 0)
    for value in (5.0, 1.0, 4.0, 3.0):
        decision = at_work.step({"loss": value})
    assert decision == Decision.PAUSE
    assert [saved.epoch for saved in run.trials[0].checkpoints] == [2, 3, 4]
    run.lease.release()
    view = read_sweep(database, "s")
    assert view.trials[0].state == TrialState.PAUSED
    assert view.trials[0].reason == "paused after epoch 4: 4 trials begin before any goes on"
    assert view.state == "INTERRUPTED"
    assert view.left_out.open == {0: 4}


def test_a_paused_trial_whose_newest_checkpoint_is_broken_trains_that_epoch_again_and_goes_on(
    tmp_path: Path,
) -> None:
    """Its decision was to pause after that epoch; it was taken, and is not taken again."""
    start = thawing(
        pruner={"name": "thaw", "max_epochs": 9, "grace_epochs": 2}, budget={"trials": 2}
    )
    run = SweepRun(open_unsynced(tmp_path / "study.db"), start)
    for _ in range(2):
        trial = run.next_trial()
        assert trial is not None
        at_work = SimulatedTrial(run, trial.number)
        decisions = [at_work.step(), at_work.step()]
        assert decisions[0] == Decision.CONTINUE
    assert run.trials[0].is_paused
    numbers = [0] if decisions[1] == Decision.CONTINUE else [run.next_trial().number]
    again = SimulatedTrial(run, numbers[0], broken=True)
    assert again.epoch == 1
    assert again.step() == Decision.CONTINUE
    assert again.step() == Decision.CONTINUE
    assert run.trials[numbers[0]].crashes == 0
    run.lease.release()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_where_gpu_hours_end_a_sweep_the_leader_has_run_to_its_end(
    tmp_path: Path, seed: int
) -> None:
    """It may be paused when no hours are left for a new trial; then it goes on."""
    generator = np.random.default_rng(seed)
    start = draw_start(
        generator,
        search={"x": {"float": [0.0, 1.0]}, "y": {"float": [0.0, 1.0]}},
        sampler={"name": "gp", "seed": seed},
        pruner={"name": "thaw", "max_epochs": 9},
        resources={"cpu": 1, "gpu": 1},
        budget={"trials": 100, "gpu_hours": 1.0},
    )
    world = draw_world(start.spec, generator, epoch_s=60.0, setup_s=3.0, jitter=0.05, failing=0.0)
    recorded = record(open_unsynced(tmp_path / "study.db"), start, world, slots=2)
    view = read_sweep(open_unsynced(tmp_path / "study.db"), "s")
    assert recorded.held_s() < 3600 + 2 * 90
    assert len(view.reports) > 40
    complete = [trial for trial in view.trials if trial.state == TrialState.COMPLETE]
    assert complete
    assert {trial.state for trial in view.trials} - {TrialState.COMPLETE} <= {
        TrialState.PAUSED, TrialState.INTERRUPTED,
    }  # fmt: skip


def test_a_search_that_begins_here_proposes_what_one_proposes_that_was_there_all_along() -> None:
    """Also between two fits, where the newest one is not in force yet."""
    start, trials, log = many_trials(12)
    lived_log: list[tuple[int, int]] = []
    lived = CurveSearch(start.spec, trials, lived_log)
    for i, entry in enumerate(log):
        lived_log.append(entry)
        if i % 5 == 0 and i > 20:
            begun = CurveSearch(start.spec, trials, list(lived_log))
            assert begun.ask(len(trials)) == lived.ask(len(trials)), i
