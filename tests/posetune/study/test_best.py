"""A trial's best epoch is known, its checkpoint is kept while it is needed, and nothing else is."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from support.curve_sweep import BEST_EPOCH, CurveSweep
from support.simulated_driver import SimulatedTrial, drive, happened, open_unsynced
from support.simulated_driver import simulated_start as sweep_start

from posetune.home import Home
from posetune.report.leaderboard import candidate_note, selection_note
from posetune.storage import open_storage
from posetune.study.driving.sweep import SweepRun
from posetune.study.events import Event, Reported, SweepStarted
from posetune.study.reading import read_sweep
from posetune.study.records import CheckpointRecord, EpochValue
from posetune.study.state import SweepState
from posetune.study.states import TrialState
from posetune.study.tables import schema
from posetune.study.tables.database import Database
from posetune.study.trials import split_needed

ENDS = {"complete": [5, 9], "killed": [5, 7, 8], "budget": [5, 7, 8], "running": [5, 7, 8]}
"""How a sweep ends, and of which epochs its one trial then keeps the checkpoints."""
MIN = {"metric": "loss", "mode": "min"}


def saved(*epochs: float) -> list[CheckpointRecord]:
    """Checkpoints in this order; .5 is one within the next epoch."""
    return [
        CheckpointRecord(1, int(e), f"{e}-{i}", "d", 1, None if e == int(e) else 2.0)
        for i, e in enumerate(epochs)
    ]


@pytest.mark.parametrize(("state", "is_among_best", "kept"), [
    (None, False, [5, 8, 9]),
    (None, True, [5, 8, 9]),
    (TrialState.COMPLETE, False, [5, 9]),
    (TrialState.PRUNED, True, [5, 9]),
    (TrialState.PRUNED, False, []),
    (TrialState.FAILED, True, [5, 9]),
    (TrialState.FAILED, False, []),
])  # fmt: skip
def test_what_a_trial_keeps(state: TrialState | None, is_among_best: bool, kept: list[int]) -> None:
    every = saved(1, 5, 5.5, 7, 8, 9)
    needed, gone = split_needed(every, state, best=5, is_among_best=is_among_best)
    assert [c.epoch for c in needed] == kept
    assert all(c.is_whole for c in needed)
    assert sorted([*needed, *gone], key=every.index) == every


def test_the_best_is_among_the_newest_or_turned_out_broken() -> None:
    assert [c.epoch for c in split_needed(saved(7, 8, 9), None, best=8)[0]] == [8, 9]
    assert [c.epoch for c in split_needed(saved(5, 6, 4), None, best=5)[0]] == [4]


@pytest.mark.parametrize("how", ENDS)
def test_the_best_of_a_sweep_however_it_ends_on_either_database(
    database: Database, tmp_path: Path, toy_store: Path, how: str
) -> None:
    home = Home(
        folder=tmp_path,
        database=str(database.engine.url),
        storage=open_storage(tmp_path / "storage"),
        tracking="",
        artifacts=tmp_path,
    )
    sweep = CurveSweep(
        database, home, toy_store, budget={"trials": 1, "gpu_hours": 7.5 if how == "budget" else 99}
    )
    sweep.end(how)

    view = read_sweep(database, "curve")
    best = view.best
    assert best is not None
    assert best.chosen == EpochValue(BEST_EPOCH, 1.5)
    assert [epoch for epoch, _ in best.improvements] == [1, 2, 3, 4, 5]
    assert view.promotable == [best]
    assert sweep.epochs_in_storage() == ENDS[how]
    assert [c.epoch for c in best.checkpoints] == ENDS[how]
    assert view.best_metrics["val/error_mm"] == 1.5
    sweep.run.lease.release()


def report(run: SweepRun, *values: float, end: bool = False) -> int:
    """Let a new trial report these values; with `end`, it fails then."""
    trial = run.next_trial()
    assert trial is not None
    at_work = SimulatedTrial(run, trial.number)
    for value in values:
        at_work.step({"loss": value})
    if end:
        run.fail(trial.number, "diverged")
    return trial.number


def kept(run: SweepRun) -> dict[int, list[int]]:
    return {t.number: [c.epoch for c in t.checkpoints] for t in run.trials}


def test_who_leaves_the_best_gives_its_checkpoints_free_by_the_event_that_says_so(
    database: Database,
) -> None:
    quiet = {"pruner": {"name": "none", "max_epochs": 9}, "keep": {"best": 2}}
    run = SweepRun(database, sweep_start(**quiet))
    report(run, 7.0, 5.0, 6.0, 8.0, end=True)
    report(run, 6.0, 9.0, end=True)
    assert kept(run) == {0: [2, 4], 1: [1, 2]}
    report(run, 9.0, end=True)  # never among them: it keeps nothing
    assert kept(run)[2] == []
    number = report(run, 5.5)
    assert kept(run) == {0: [2, 4], 1: [], 2: [], 3: [1]}
    gone = [c.folder for c in run.release_checkpoints(number)]
    assert gone == [], "the driver was given them with the report"
    displaced = [event.displaced for event in happened(database, Reported) if event.displaced]
    assert displaced == [(1,)]
    run.lease.release()


def test_what_a_displaced_trial_held_is_given_to_whoever_deletes_it(database: Database) -> None:
    quiet = {"pruner": {"name": "none", "max_epochs": 9}, "keep": {"best": 1}}
    run = SweepRun(database, sweep_start(**quiet))
    report(run, 7.0, 8.0, end=True)
    trial = run.next_trial()
    assert trial is not None
    attempt = run.begin_attempt(trial.number)
    run.report(
        trial.number, attempt.number, epoch=1, metrics={"loss": 1.0}, seconds=1.0, checkpoint=None
    )
    assert [c.epoch for c in run.release_checkpoints(trial.number)] == [1, 2]
    run.lease.release()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_so_far_never_goes_back_and_all_agree_on_it(
    tmp_path: Path, mode: str, seed: int
) -> None:
    database = open_unsynced(tmp_path / "study.db")
    generator = random.Random(seed)
    noisy = sweep_start(objective={"metric": "loss", "mode": mode}, pruner={"max_epochs": 9})
    run = SweepRun(database, noisy)
    at_work: list[SimulatedTrial] = []
    seen: list[float] = []
    while True:
        if len(at_work) < 3 and (trial := run.next_trial()) is not None:
            at_work.append(SimulatedTrial(run, trial.number))
        if not at_work:
            break
        under_way = generator.choice(at_work)
        if generator.random() < 0.05:
            run.fail(under_way.number, "diverged")
            at_work.remove(under_way)
        elif under_way.step({"loss": generator.gauss(0, 1)}) != "continue":
            at_work.remove(under_way)
        if run.best is None:
            continue
        view = read_sweep(database, "s")
        assert run.best.best is not None
        assert view.best is not None
        assert view.best.number == run.best.number == view.bests[-1].trial
        assert view.best.chosen == run.best.best == view.bests[-1][-2:]
        seen.append(run.best.best.value)
    assert seen == sorted(seen, reverse=mode == "min")
    assert len(set(seen)) > 1
    run.lease.release()


class Watched(SweepState):
    """Looks at once whether everybody who leads has a value, as another thread may."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "leading":
            assert all(self.trials[number].best is not None for number in value)


def test_whoever_leads_has_a_value_at_any_moment(database: Database) -> None:
    run = SweepRun(database, sweep_start())
    report(run, 3.0, 2.0)
    report(run, 1.0)
    state = Watched(sweep_start().spec)
    for event in happened(database, Event):
        state.apply(event)
    assert state.leading == [1, 0]
    run.lease.release()


def test_who_is_promoted_instead_of_the_best_is_said_with_the_reason(database: Database) -> None:
    quiet = {"pruner": {"name": "asha", "max_epochs": 9}, "keep": {"best": 1}}
    run = SweepRun(database, sweep_start(**quiet))
    report(run, 5.0)
    view = read_sweep(database, "s")
    assert view.candidate is view.best
    assert candidate_note(view) == ""

    report(run, 4.0, 1.9, 2.5, end=True)
    report(run, 3.5, 3.4, 2.4)
    report(run, 1.0, end=True)

    view = read_sweep(database, "s")
    assert [trial.number for trial in view.promotable] == [1, 2]
    assert view.best is view.trials[3]
    assert view.candidate is view.trials[2]
    note = candidate_note(view)
    assert note == (
        "trial 3's 1.00 at epoch 1 failed; the best checkpoint of trial 1 is gone (the sweep "
        "file's key keep says how many are kept); posetune promote takes trial 2, the best that "
        "reached epoch 3 and has its checkpoint"
    )
    assert selection_note(view).endswith(note)
    run.lease.release()


def test_equal_values_leave_the_earlier_epoch_the_best(database: Database) -> None:
    run = SweepRun(database, sweep_start(pruner={"name": "none", "max_epochs": 9}))
    report(run, 3.0, 2.0, 2.0)
    report(run, 2.0)
    assert run.trials[0].best == EpochValue(2, 2.0)
    assert run.best is run.trials[0]
    run.lease.release()


def test_a_sweep_that_was_begun_before_keeps_the_last(database: Database) -> None:
    """Its rules are those of then: the last epoch counts, and nothing more is kept."""
    SweepRun(database, sweep_start()).lease.release()

    def begin_earlier(connection: Any) -> None:
        table = schema.event
        connection.execute(
            update(table).where(table.c.kind == "sweep_started").values(data={"semantics": 1})
        )

    database.write(begin_earlier)
    run = SweepRun(database, sweep_start())
    assert run.spec.objective.select == "last"
    report(run, 1.0, 2.0, 3.0)
    assert kept(run) == {0: [2, 3]}
    run.fail(0, "diverged")
    assert kept(run) == {0: []}
    run.lease.release()

    view = read_sweep(database, "s")
    assert not view.keeps_best
    assert view.trials[0].chosen == EpochValue(3, 3.0)


@pytest.mark.slow
def test_select_changes_no_decision(database: Database, tmp_path: Path) -> None:
    """Sampler, rungs and budget see the values at their epochs, whichever epoch counts."""
    decided = []
    for name, select in (("best", "best"), ("last", "last")):
        start = sweep_start(objective={**MIN, "select": select})
        drive(database, type(start)(**{**vars(start), "name": name}), order=random.Random(1))
        view = read_sweep(database, name)
        trials = [[t.number, t.params, t.seed, t.state, t.epochs, t.value] for t in view.trials]
        reports = [list(report) for report in view.reports]
        decided.append(json.dumps([trials, reports]))
    assert decided[0] == decided[1]


def test_a_sweep_begins_with_todays_rules(database: Database) -> None:
    SweepRun(database, sweep_start()).lease.release()
    assert [event.semantics for event in happened(database, SweepStarted)] == [3]
