"""Trials that go on from another one: where points are repeated, and where the parent goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.simulated_driver import SimulatedTrial, open_unsynced, simulated_start

from posetune.study.acts.act import BranchTrial, ExtendTrial
from posetune.study.acts.asking import ask
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.reading import read_sweep
from posetune.study.search.rungs import Decision
from posetune.study.tables.database import Database

ANA = "ana@laptop"


@pytest.fixture
def study(tmp_path: Path) -> Database:
    return open_unsynced(tmp_path / "study.db")


def start(**changes: Any) -> SweepStart:
    return simulated_start(**{"pruner": {"name": "none", "max_epochs": 4}, **changes})


def begin(run: SweepRun) -> SimulatedTrial:
    trial = run.next_trial()
    assert trial is not None
    return SimulatedTrial(run, trial.number)


def complete(trial: SimulatedTrial) -> None:
    while trial.step() == Decision.CONTINUE:
        pass


def branch_and_extend(study: Database, run: SweepRun, *, to_epoch: int) -> None:
    """Have trial 0 go on, and another one go on from where it stands now."""
    ask(study, "s", BranchTrial(trial=0, epochs=9, params={"x": 0.1}), by=ANA, wait_s=0.0)
    ask(study, "s", ExtendTrial(trial=0, epochs=to_epoch), by=ANA, wait_s=0.0)
    run.take_up_requests()


def test_the_repeats_of_a_trial_with_a_parent_go_on_from_the_same_parent(study: Database) -> None:
    repeated = start(sampler={"repeats": 2}, budget={"trials": 6})
    run = SweepRun(study, repeated)
    for _ in range(2):
        complete(begin(run))
    ask(study, "s", BranchTrial(trial=1, epochs=6, params={"x": 0.1}), by=ANA, wait_s=0.0)
    run.take_up_requests()
    first, second = begin(run), begin(run)
    assert [trial.epoch for trial in (first, second)] == [4, 4]
    complete(first)
    second.step()
    run.lease.release()  # killed: the next driver goes on with what the repeat has saved
    run = SweepRun(study, repeated)
    again = begin(run)
    assert (again.number, again.epoch) == (3, 5)
    complete(again)
    complete(begin(run))
    run.lease.release()
    view = read_sweep(study, "s")
    point = view.trials[2:4]
    assert [(t.parent, t.epochs, t.last_epoch) for t in point] == [(1, 6, 6), (1, 6, 6)]
    assert point[0].params == point[1].params
    assert point[0].seed != point[1].seed
    assert view.means[2].trials == 2
    assert [t.parent for t in view.trials[4:]] == [None]


def test_a_trial_goes_on_from_the_epoch_that_its_parent_had_when_it_was_asked_for(
    study: Database,
) -> None:
    run = SweepRun(study, start(budget={"trials": 3}))
    complete(begin(run))
    branch_and_extend(study, run, to_epoch=6)
    parent = begin(run)
    assert parent.number == 0
    child = run.next_trial()
    assert child is not None
    assert (child.parent, child.epoch) == (0, 4)
    parent.step()
    under_way = SimulatedTrial(run, child.number)
    assert under_way.epoch == 4, "not the fifth, which the parent has trained since"
    run.lease.release()


@pytest.mark.parametrize("repeats", [1, 2])
def test_what_a_trial_goes_on_from_is_kept_until_it_has_a_checkpoint_of_its_own(
    study: Database, repeats: int
) -> None:
    run = SweepRun(study, start(sampler={"repeats": repeats}, budget={"trials": 3 * repeats}))
    for _ in range(repeats):
        complete(begin(run))
    branch_and_extend(study, run, to_epoch=12)
    parent = begin(run)
    assert parent.number == 0
    for _ in range(3):
        parent.step()
    assert kept(run) == [4, 6, 7], "the child was not even asked for"
    for _ in range(repeats):
        assert 4 in kept(run)
        child = begin(run)
        assert child.epoch == 4
        parent.step()
        assert 4 in kept(run), "its worker may die before it saves"
        child.step()
    parent.step()
    last = 8 + repeats
    assert kept(run) == [last - 1, last]
    run.lease.release()
    assert [c.epoch for c in read_sweep(study, "s").trials[0].checkpoints] == kept(run)


def kept(run: SweepRun) -> list[int]:
    return [saved.epoch for saved in run.trials[0].checkpoints]


@pytest.mark.parametrize("how", ["saves", "fails"])
def test_a_parent_that_has_ended_lets_go_what_it_kept_for_the_child_alone(
    study: Database, how: str
) -> None:
    run = SweepRun(study, start(budget={"trials": 3}))
    complete(begin(run))
    branch_and_extend(study, run, to_epoch=6)
    complete(begin(run))
    assert kept(run) == [4, 6]
    child = begin(run)
    run.release_checkpoints(0)
    if how == "saves":
        child.run.report(
            child.number,
            child.attempt,
            epoch=5,
            metrics={"loss": 1.0},
            seconds=1.0,
            checkpoint=child._checkpoint(5),
        )
    else:
        run.fail(child.number, "diverged")
    assert kept(run) == [6]
    assert [saved.epoch for saved in run.release_checkpoints(child.number)] == [4]
    run.lease.release()
    assert [c.epoch for c in read_sweep(study, "s").trials[0].checkpoints] == [6]


def test_a_trial_whose_start_is_gone_fails_with_its_name(study: Database) -> None:
    run = SweepRun(study, start(budget={"trials": 3}))
    complete(begin(run))
    ask(study, "s", BranchTrial(trial=0, epochs=9, params={"x": 0.1}), by=ANA, wait_s=0.0)
    run.take_up_requests()
    run.trials[0].checkpoints.clear()  # as in a study whose parent trained on before this rule
    after = run.next_trial()
    assert after is not None
    assert (after.number, after.parent) == (2, None)
    lost = run.trials[1]
    assert (lost.state, lost.epoch) == ("FAILED", 4)
    assert lost.reason.startswith(
        "the checkpoint of trial 0 after epoch 4, which it was to go on from, is gone"
    )
    run.lease.release()
