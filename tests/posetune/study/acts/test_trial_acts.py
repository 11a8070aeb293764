"""What people do to a trial: on either database, with a driver at work and without."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.asking import ANA, begin, driver, opening, trial, want, without_pruner
from support.simulated_driver import SimulatedTrial, drive, open_unsynced, simulated_start

from posetune.report.tables import next_steps
from posetune.spec.sweep import SweepSpec
from posetune.study.acts.act import (
    BranchTrial,
    EditSweep,
    Enqueue,
    ExtendTrial,
    PinTrial,
    RetryTrial,
    StopTrial,
)
from posetune.study.acts.deciding import ActRefusedError
from posetune.study.driving.sweep import SweepRun
from posetune.study.reading import read_sweep
from posetune.study.search.rungs import Decision
from posetune.study.tables.database import Database
from posetune.study.view import SweepView

# -- stop -----------------------------------------------------------


def test_a_trial_is_stopped_after_its_epoch_and_keeps_its_checkpoint(database: Database) -> None:
    with driver(database, without_pruner()) as run:
        at_work = begin(run)
        at_work.step()
        want(database, StopTrial(trial=0))
        run.take_up_requests()
        assert run.trials[0].state is None, "the epoch under way is trained to its end"
        at_work.step()
        assert run.trials[0].state == "STOPPED"
    stopped = trial(database, 0)
    assert (stopped.epochs, stopped.reason) == (2, f"stopped by {ANA} after epoch 2")
    assert stopped.checkpoint is not None
    assert stopped.checkpoint.epoch == 2


def test_at_rest_a_trial_is_stopped_at_once(database: Database) -> None:
    with driver(database, without_pruner()) as run:
        at_work = begin(run)
        at_work.step()
        at_work.step()
    held_s = trial(database, 0).held_s
    assert not want(database, StopTrial(trial=0)).request.is_waiting
    stopped = trial(database, 0)
    assert (stopped.state, stopped.epochs) == ("STOPPED", 2)
    assert stopped.held_s == held_s, "the time at rest was not spent on it"
    drive(database, without_pruner())
    assert trial(database, 0).epochs == 2, "a driver leaves it alone"
    assert read_sweep(database, "s").state == "COMPLETE"


def test_a_killed_driver_leaves_a_stop_to_the_next_one(database: Database) -> None:
    with driver(database, without_pruner()) as run:
        begin(run).step()
        want(database, StopTrial(trial=0))
        run.take_up_requests()
    assert trial(database, 0).state == "INTERRUPTED"
    drive(database, without_pruner())
    assert (trial(database, 0).state, trial(database, 0).epochs) == ("STOPPED", 2)


# -- enqueue, pin, retry, extend -----------------------------------------------------------


def test_an_enqueued_trial_is_the_next_one_and_the_sampler_learns_from_it(
    database: Database,
) -> None:
    want_x = {"x": 0.7, "depth": 6}
    with driver(database, opening(budget={"trials": 12})) as run:
        begin(run)
        want(database, Enqueue(params=want_x))
        run.take_up_requests()
        assert [r.params for r in run.state.queue] == [want_x]
        begin(run)
        assert run.trials[1].params == want_x
        assert run.trials[1].chosen_by == ANA
        assert not run.state.queue
        begin(run)
        assert run.trials[2].params != want_x
        known = run._memory._study.trials
    assert known[1].params == want_x


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"x": 99.0, "depth": 4}, r"x: 99.0 lies outside of \[0.01, 10\]"),
        ({"x": 1.0, "depth": 5}, "depth: 5 lies outside"),
        ({"x": 1.0}, "depth: has no value"),
        ({"x": 1.0, "depth": 4, "y": 1}, "y: is not searched"),
    ],
)
def test_what_the_search_space_does_not_hold_is_not_enqueued(
    tmp_path: Path, params: dict[str, float], why: str
) -> None:
    database = open_unsynced(tmp_path / "study.db")
    with driver(database), pytest.raises(ActRefusedError, match=why):
        want(database, Enqueue(params=params))


WORSE = {"x": 9.0, "depth": 16}
"""Parameters that ASHA cuts at the first rung, once a few others were there."""


def with_a_bad_trial(database: Database, *, pinned: bool) -> SweepView:
    """Drive a sweep whose fourth trial is bad; perhaps somebody pins it."""
    start = simulated_start(budget={"trials": 8})

    def between(run: SweepRun) -> None:
        if len(run.trials) == 3 and not run.state.queue:
            want(database, Enqueue(params=WORSE))
            run.take_up_requests()
        if pinned and len(run.trials) == 4 and not run.trials[3].is_pinned:
            want(database, PinTrial(trial=3))
            run.take_up_requests()

    drive(database, start, between=between)
    return read_sweep(database, "s")


def test_a_pinned_trial_runs_to_its_end_and_is_compared_with_nobody(tmp_path: Path) -> None:
    cut = with_a_bad_trial(open_unsynced(tmp_path / "cut.db"), pinned=False)
    database = open_unsynced(tmp_path / "kept.db")
    kept = with_a_bad_trial(database, pinned=True)
    assert (cut.trials[3].state, cut.trials[3].epochs) == ("PRUNED", 1)
    assert (kept.trials[3].state, kept.trials[3].epochs) == ("COMPLETE", 9)
    assert kept.audited == {}, "it is no sample of what cutting costs"
    rungs = {epoch: sum(r.epoch == epoch and r.trial != 3 for r in kept.reports) for epoch in (3,)}
    with driver(database, simulated_start(budget={"trials": 8})) as run:
        assert {epoch: len(run.state.rungs.records[epoch]) for epoch in (3,)} == rungs


def test_a_stopped_trial_is_taken_up_again_where_it_was(database: Database) -> None:
    with driver(database, without_pruner()) as run:
        at_work = begin(run)
        at_work.step()
        want(database, StopTrial(trial=0))
        run.take_up_requests()
        at_work.step()
        want(database, RetryTrial(trial=0))
        run.take_up_requests()
        again = begin(run)
        assert (again.number, again.epoch) == (0, 2)
        while again.step() == Decision.CONTINUE:
            pass
    assert (trial(database, 0).state, trial(database, 0).epochs) == ("COMPLETE", 4)


def test_a_failed_trial_is_taken_up_again_with_all_its_attempts(database: Database) -> None:
    with driver(database, without_pruner()) as run:
        for _ in range(3):
            begin(run) if not run.trials else SimulatedTrial(run, 0)
        assert run.trials[0].crashes == 2
        run.fail(0, "its worker died")
        want(database, RetryTrial(trial=0))
        run.take_up_requests()
        assert run.trials[0].crashes == 0
        again = begin(run)
        assert again.number == 0
        assert not run.trials[0].crashes, "the first one is no crash"
        while again.step() == Decision.CONTINUE:
            pass
        learned = [t.state.name for t in run._memory._study.trials]
        run._memory.ask(1)
        assert learned == ["RUNNING"]
        assert [t.state.name for t in run._memory._study.trials][:1] == ["COMPLETE"]


def reports(database: Database) -> list[tuple[int, int, float | None]]:
    return [(r.trial, r.epoch, r.value) for r in read_sweep(database, "s").reports]


def test_a_trial_extended_to_e_reports_what_one_that_was_asked_for_e_reports(
    tmp_path: Path,
) -> None:
    extended, asked = open_unsynced(tmp_path / "a.db"), open_unsynced(tmp_path / "b.db")
    drive(extended, without_pruner(4, trials=1))
    want(extended, ExtendTrial(trial=0, epochs=7))
    drive(extended, without_pruner(4, trials=1))
    drive(asked, without_pruner(7, trials=1))
    assert reports(extended) == reports(asked)
    found = trial(extended, 0)
    assert (found.state, found.last_epoch) == ("COMPLETE", 7)
    assert found.reason == "was extended to 7 epochs"


@pytest.mark.slow
def test_what_an_extended_trial_reports_teaches_neither_sampler_nor_rungs(
    tmp_path: Path,
) -> None:
    plain, extended = open_unsynced(tmp_path / "a.db"), open_unsynced(tmp_path / "b.db")
    small, large = ({"trials": count} for count in (6, 14))
    for database in (plain, extended):
        drive(database, simulated_start(budget=small))
    ended = {
        state: n.number for n in reversed(read_sweep(extended, "s").trials) if (state := n.state)
    }
    want(extended, ExtendTrial(trial=ended["COMPLETE"], epochs=12))
    want(extended, ExtendTrial(trial=ended["PRUNED"], epochs=5))
    for database in (plain, extended):
        drive(database, simulated_start(budget=large))
    mine = set(ended.values())

    def others(database: Database) -> list[tuple[object, ...]]:
        trials = read_sweep(database, "s").trials
        return [(t.number, t.params, t.state, t.epochs) for t in trials if t.number not in mine]

    assert others(extended) == others(plain)
    assert trial(extended, ended["COMPLETE"]).epochs == 12
    assert trial(extended, ended["PRUNED"]).epochs == 5
    assert trial(extended, ended["PRUNED"]).state == "PRUNED"
    assert read_sweep(extended, "s").audited == read_sweep(plain, "s").audited


def test_with_other_parameters_a_new_trial_goes_on_from_its_parents_checkpoint(
    database: Database,
) -> None:
    start = without_pruner(4, trials=3)
    with driver(database, start) as run:
        for _ in range(2):
            at_work = begin(run)
            while at_work.step() == Decision.CONTINUE:
                pass
        want(database, BranchTrial(trial=0, epochs=6, params={"x": 0.1}))
        run.take_up_requests()
        parent = trial(database, 0)
        child = begin(run)
        assert (child.number, child.epoch) == (2, 4)
        child.step()
    with driver(database, start) as run:  # a killed driver's successor goes on with the child's own
        child = begin(run)
        assert (child.number, child.epoch) == (2, 5)
        child.step()
        learned = run._memory._study.trials
    found = trial(database, 2)
    assert (found.parent, found.epochs, found.state) == (0, 6, "COMPLETE")
    assert found.params == {**parent.params, "x": 0.1}
    assert found.seed == parent.seed
    assert found.reason == "went on from trial 0 to 6 epochs"
    assert parent.epochs == 4
    assert [r.epoch for r in read_sweep(database, "s").reports if r.trial == 2] == [5, 6]
    assert learned[2].state.name == "FAIL", "the sampler learns nothing from it"
    assert parent.checkpoints
    assert trial(database, 0) == parent, "its child changes nothing of it"


def test_what_waits_is_the_next_step_and_a_second_extension_is_refused_with_its_reason(
    database: Database,
) -> None:
    start = without_pruner(2, trials=1)
    drive(database, start)
    want(database, ExtendTrial(trial=0, epochs=4))
    line = next_steps(read_sweep(database, "s"))
    assert line == (
        "the command that started it, again: it takes up what waits for a driver (extend)"
    )
    for act in (
        ExtendTrial(trial=0, epochs=5),
        BranchTrial(trial=0, epochs=5, params={"x": 0.1}),
    ):
        with pytest.raises(ActRefusedError, match=f"trial 0: an extension of it, by {ANA}, waits"):
            want(database, act)
    spec = SweepSpec.model_validate({**start.spec.canonical(), "budget": {"trials": 2}})
    want(database, EditSweep(spec=spec.canonical(), source="edited"))
    line = next_steps(read_sweep(database, "s"), " --home runs")
    assert line.startswith("posetune sweep NEWFILE --name s --home runs, with the edit's file: ")
    assert line.endswith("(extend, edit)")


# -- trials that are paused -----------------------------------------------------------


def until_paused(run: SweepRun) -> int:
    """Train until the pruner has paused a trial, and return its number."""
    while not run.state.paused:
        at_work = begin(run)
        while at_work.step() == Decision.CONTINUE:
            pass
    return run.state.paused[0]


def test_a_paused_trial_is_stopped_taken_up_again_and_pinned(database: Database) -> None:
    start = opening(pruner={"name": "thaw", "max_epochs": 9}, budget={"trials": 14})
    with driver(database, start) as run:
        number = until_paused(run)
        want(database, StopTrial(trial=number))
        run.take_up_requests()
        assert trial(database, number).state == "STOPPED"

        want(database, RetryTrial(trial=number))
        run.take_up_requests()
        assert number in run.state.waiting
        assert number not in run.state.paused

        pinned = until_paused(run)
        want(database, PinTrial(trial=pinned))
        run.take_up_requests()
        assert pinned in run.state.waiting
        assert pinned not in run.state.paused
    drive(database, start)
    assert trial(database, pinned).state == "COMPLETE"
    assert trial(database, number).state in ("COMPLETE", "PRUNED")
