"""What people do to a sweep: on either database, with a driver at work and without."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from support.simulated_driver import (
    SimulatedTrial,
    drive,
    happened,
    open_unsynced,
    outcome,
    simulated_start,
)

from posetune.api import BadInputError
from posetune.spec.sweep import SweepSpec
from posetune.study import act_events, events
from posetune.study.acts import requests
from posetune.study.acts.act import (
    Act,
    AddNote,
    BranchTrial,
    EditSweep,
    Enqueue,
    ExtendTrial,
    HoldSweep,
    PinTrial,
    ReleaseSweep,
    RetryTrial,
    SetTag,
    StopTrial,
    UnknownAct,
)
from posetune.study.acts.asking import Asked, ask
from posetune.study.acts.deciding import ActRefusedError
from posetune.study.driving.sweep import SweepRun
from posetune.study.driving.sweep_start import SweepStart
from posetune.study.history import read_history
from posetune.study.old.upgrade import needs_upgrade, upgrade
from posetune.study.reading import read_sweep
from posetune.study.search.rungs import Decision
from posetune.study.tables import schema
from posetune.study.tables.database import Database, open_database
from posetune.study.view import SweepView, TrialView

ANA = "ana@laptop"


def want(database: Database, act: Act, by: str = ANA) -> Asked:
    return ask(database, "s", act, by=by, wait_s=0.0)


def opening(**changes: object) -> SweepStart:
    return simulated_start(**{"budget": {"trials": 3}, "pruner": {"max_epochs": 4}, **changes})


def without_pruner(max_epochs: int = 4, trials: int = 3) -> SweepStart:
    pruner = {"name": "none", "max_epochs": max_epochs}
    return opening(pruner=pruner, budget={"trials": trials})


def trial(database: Database, number: int) -> TrialView:
    return read_sweep(database, "s").trials[number]


@contextlib.contextmanager
def driver(database: Database, start: SweepStart | None = None) -> Iterator[SweepRun]:
    """A driver at work, which takes requests up when the test says so."""
    run = SweepRun(database, start or opening())
    try:
        yield run
    finally:
        run.lease.release()


def begin(run: SweepRun) -> SimulatedTrial:
    trial = run.next_trial()
    assert trial is not None
    return SimulatedTrial(run, trial.number)


# -- the mechanism -----------------------------------------------------------


def test_a_request_becomes_an_event_when_the_driver_takes_it_up(database: Database) -> None:
    with driver(database) as run:
        asked = want(database, PinTrial(trial=0)) if run.next_trial() else None
        assert asked is not None
        assert asked.request.is_waiting
        assert not happened(database, act_events.TrialPinned)
        run.take_up_requests()
        assert [event.by for event in happened(database, act_events.TrialPinned)] == [ANA]
        with database.reading() as connection:
            found = requests.read_request(connection, asked.request.token)
        assert found is not None
        assert found.seq == run.state.seq


def test_requests_become_events_in_their_order_where_the_driver_stands(database: Database) -> None:
    with driver(database) as run:
        begin(run)
        for act in (HoldSweep(), ReleaseSweep(), SetTag(name="a"), AddNote(text="then")):
            want(database, act)
        run.take_up_requests()
        kinds = [type(event).__name__ for event in happened(database, object)]
        assert kinds[-1] == "SweepHeld", "a trial is at work until it has saved"
        run.take_up_requests()
    kinds = [type(event).__name__ for event in happened(database, object)]
    assert kinds[-4:] == ["SweepHeld", "SweepReleased", "TagSet", "NoteAdded"]


def test_a_resting_sweep_takes_requests_up_when_it_goes_on(database: Database) -> None:
    drive(database, opening(budget={"trials": 2}))
    asked = want(database, ExtendTrial(trial=0, epochs=6))
    assert asked.request.is_waiting
    assert not asked.is_live
    assert [r.by for r in read_sweep(database, "s").waiting_requests] == [ANA]
    drive(database, opening(budget={"trials": 2}))
    assert trial(database, 0).epochs == 6
    assert not read_sweep(database, "s").waiting_requests


def test_what_the_driver_cannot_do_any_more_is_refused_with_a_reason(database: Database) -> None:
    with driver(database) as run:
        at_work = begin(run)
        asked = want(database, StopTrial(trial=0))
        while at_work.step() == Decision.CONTINUE:
            pass
        run.take_up_requests()
        with database.reading() as connection:
            found = requests.read_request(connection, asked.request.token)
        assert found is not None
        assert "trial 0: has ended, it is COMPLETE" in found.refused
        before = run.state.seq
        run.take_up_requests()
        assert run.state.seq == before


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (StopTrial(trial=9), "trial 9: the sweep has 3 trials so far"),
        (StopTrial(trial=0), "trial 0: has ended"),
        (PinTrial(trial=0), "trial 0: has ended"),
        (RetryTrial(trial=0), "trial 0: is COMPLETE; only a FAILED or STOPPED"),
        (ExtendTrial(trial=0, epochs=2), "trial 0: has 4 epochs; --epochs 2 must be more"),
        (ReleaseSweep(), "the sweep is not held"),
        (Enqueue(params={"x": 1.0, "depth": 4}), "budget.trials 3: the sweep has no trial left"),
    ],
)
def test_what_a_sweep_does_not_allow_is_refused_at_once(tmp_path: Path, act: Act, why: str) -> None:
    database = open_unsynced(tmp_path / "study.db")
    drive(database, without_pruner())
    before = len(happened(database, object))
    with pytest.raises(ActRefusedError, match=why):
        want(database, act)
    assert len(happened(database, object)) == before
    assert not read_sweep(database, "s").waiting_requests


def test_a_request_that_is_written_twice_is_there_once(database: Database) -> None:
    with driver(database) as run:
        run.next_trial()
        request = requests.Request(PinTrial(trial=0), ANA)
        for _ in range(2):
            database.write(lambda c: requests.write_request(c, run.id, request))
        run.take_up_requests()
    assert len(happened(database, act_events.TrialPinned)) == 1


def test_a_row_that_no_driver_understands_is_refused_and_harms_nobody(database: Database) -> None:
    with driver(database) as run:
        begin(run)
        request = requests.Request(UnknownAct(content={"kind": "dance"}), ANA)
        database.write(lambda c: requests.write_request(c, run.id, request))
        with database.engine.begin() as connection:
            connection.execute(schema.request.update().values(act={"kind": "dance"}))
        want(database, AddNote(text="after it"))
        run.take_up_requests()
        with database.reading() as connection:
            found = requests.read_request(connection, request.token)
    assert found is not None
    assert "knows no such act: {'kind': 'dance'}" in found.refused
    assert [event.text for event in happened(database, act_events.NoteAdded)] == ["after it"]


def test_no_act_at_rest_gets_between_a_driver_and_its_events(database: Database) -> None:
    """Whoever asks looks, and a driver begins: the note must wait for it then."""
    drive(database, opening(budget={"trials": 1}))
    grown = opening(budget={"trials": 2})
    begun: list[SweepRun] = []

    class Overtaken(Database):
        def write(self, change: Callable[..., object]) -> object:
            if not begun:
                begun.append(SweepRun(database, grown))
            return database.write(change)

    asked = ask(Overtaken(database.engine), "s", AddNote(text="x"), by=ANA, wait_s=0.0)
    assert asked.request.is_waiting
    begin(begun[0])
    begun[0].take_up_requests()
    begun[0].lease.release()
    assert [event.text for event in happened(database, act_events.NoteAdded)] == ["x"]


def test_a_study_of_version_3_is_read_as_it_is_and_upgraded_by_its_next_driver(
    tmp_path: Path,
) -> None:
    database = open_unsynced(tmp_path / "study.db")
    drive(database, opening(budget={"trials": 1}))
    expected = outcome(database)
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE request"))
        connection.execute(text("UPDATE posetune SET version = 3"))
    old = open_database(f"sqlite:///{tmp_path / 'study.db'}")
    assert outcome(old) == expected
    assert needs_upgrade(old), "reading never upgrades"
    with pytest.raises(BadInputError, match="posetune upgrade brings it"):
        want(old, AddNote(text="x"))
    drive(old, opening(budget={"trials": 2}))
    assert not needs_upgrade(old)
    assert (tmp_path / "study.db.v3").exists()
    assert upgrade(old) is None
    assert not want(old, AddNote(text="x")).request.is_waiting


# -- notes and tags -----------------------------------------------------------


def test_notes_and_tags_are_there_at_once_where_no_driver_is_at_work(database: Database) -> None:
    drive(database, opening())
    driven_s = read_sweep(database, "s").driven_s
    assert not want(database, AddNote(text="good", trial=1)).request.is_waiting
    want(database, SetTag(name="paper", value="fig-3"))
    want(database, SetTag(name="bad", value=""))
    want(database, SetTag(name="bad", value=None))
    view = read_sweep(database, "s")
    assert [(r.by, r.text) for r in view.trials[1].remarks] == [(ANA, "good")]
    assert view.tags == {"paper": "fig-3"}
    assert view.driven_s == driven_s, "a note is no driver at work"
    told = [h.text for h in read_history(database, view.id)]
    assert f"{ANA} noted: good" in told
    assert f"{ANA} tagged: paper = fig-3" in told


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
        child = begin(run)
        assert (child.number, child.epoch) == (2, 4)
        child.step()
    with driver(database, start) as run:  # a killed driver's successor goes on with the child's own
        child = begin(run)
        assert (child.number, child.epoch) == (2, 5)
        child.step()
        learned = run._memory._study.trials
    found = trial(database, 2)
    parent = trial(database, 0)
    assert (found.parent, found.epochs, found.state) == (0, 6, "COMPLETE")
    assert found.params == {**parent.params, "x": 0.1}
    assert found.seed == parent.seed
    assert found.reason == "went on from trial 0 to 6 epochs"
    assert parent.epochs == 4
    assert [r.epoch for r in read_sweep(database, "s").reports if r.trial == 2] == [5, 6]
    assert learned[2].state.name == "FAIL", "the sampler learns nothing from it"
    assert parent.checkpoints == trial(database, 0).checkpoints


# -- hold and release -----------------------------------------------------------


def test_a_held_sweep_starts_nothing_until_it_is_released(database: Database) -> None:
    now = [1000.0]
    start = opening(budget={"trials": 3, "wall_hours": 1})
    run = SweepRun(database, start, clock=lambda: now[0])
    at_work = begin(run)
    now[0] += 60
    at_work.step()
    want(database, HoldSweep())
    run.take_up_requests()
    assert run.held == f"held by {ANA} (posetune release s)"
    assert run.waits_for == run.held
    at_work.hand_over()
    view = read_sweep(database, "s")
    assert (view.state, view.held_by, view.trials[0].state) == ("RUNNING", ANA, "INTERRUPTED")
    now[0] += 7200
    assert not run.spent, "the hours do not run while it is held"
    want(database, ReleaseSweep())
    run.take_up_requests()
    assert not run.held
    assert not run.spent
    assert run.state.driven_s < 120
    again = begin(run)
    assert (again.number, again.epoch) == (0, 1)
    assert run.trials[0].crashes == 0
    run.lease.release()


def test_a_sweep_stays_held_whatever_becomes_of_its_driver(database: Database) -> None:
    with driver(database) as run:
        want(database, HoldSweep())
        run.take_up_requests()
    with driver(database) as run:
        assert run.held
    want(database, ReleaseSweep())
    with driver(database) as run:
        assert not run.held


# -- edit -----------------------------------------------------------


def edited(start: SweepStart, **changes: object) -> tuple[EditSweep, SweepStart]:
    """Return an edit of a sweep, and what the sweep is continued with from then on."""
    spec = SweepSpec.model_validate({**start.spec.canonical(), **changes})
    new = SweepStart("s", spec, "another text", "store", "d1", {}, start.defaults)
    return EditSweep(spec=spec.canonical(), source=new.source), new


def test_an_edited_sweep_has_other_bounds_budget_and_rungs_from_then_on(
    database: Database,
) -> None:
    start = simulated_start(budget={"trials": 6})
    drive(database, start)
    before = read_sweep(database, "s")
    search = {"x": {"float": [0.5, 1.0]}, "depth": {"int": [2, 16], "step": 2}}
    act, new = edited(
        start,
        search=search,
        budget={"trials": 12},
        pruner={"max_epochs": 9, "grace_epochs": 2, "reduction_factor": 2},
    )
    want(database, act)
    drive(database, new)
    view = read_sweep(database, "s")
    (event,) = happened(database, act_events.SweepEdited)
    assert event.outside == [t.number for t in before.trials if not 0.5 <= t.params["x"] <= 1.0]
    assert event.outside
    assert any(line.startswith("search.x: ") for line in event.changed)
    assert len(view.trials) == 12
    assert all(0.5 <= t.params["x"] <= 1.0 for t in view.trials[6:])
    assert {t.epochs for t in view.trials[6:]} <= {2, 4, 8, 9}
    assert view.trials[:6] == before.trials or [t.params for t in view.trials[:6]] == [
        t.params for t in before.trials
    ]
    assert view.source == "another text"
    with pytest.raises(BadInputError, match="was started with another file"):
        SweepRun(database, start)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sampler": {"seed": 7}}, "sampler.seed: 0 -> 7: an edit changes budget"),
        ({"pruner": {"max_epochs": 5}}, "pruner.max_epochs: 4 -> 5"),
        ({"search": {"x": {"float": [0.5, 1.0]}}}, "the same fields other bounds"),
        ({}, "the file says what the sweep has already"),
    ],
)
def test_an_edit_changes_nothing_else(tmp_path: Path, changes: dict[str, object], why: str) -> None:
    database = open_unsynced(tmp_path / "study.db")
    drive(database, opening())
    act, _ = edited(opening(), **changes)
    with pytest.raises(ActRefusedError, match=why):
        want(database, act)


def test_what_belongs_to_the_machine_may_change_in_the_file_at_any_time(
    database: Database,
) -> None:
    drive(database, opening(resources={"concurrent": 1}))
    with driver(database, opening(resources={"concurrent": 7}, budget={"trials": 4})) as run:
        assert run.spec.resources.concurrent == 7
        assert read_sweep(database, "s").spec.resources.concurrent == 7
    with pytest.raises(BadInputError, match="resources"):
        SweepRun(database, opening(resources={"cpu": 2}))


def _act_kinds() -> tuple[type, ...]:
    return act_events.ActEvent.__args__  # type: ignore[no-any-return]


def test_every_act_says_who() -> None:
    for cls in _act_kinds():
        assert "by" in cls.__dataclass_fields__, cls
    assert "by" in events.DriverOpened.__dataclass_fields__


# -- trials that are paused ---------------------------------------------------------------------


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
