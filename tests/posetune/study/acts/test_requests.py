"""How an act becomes an event: on either database, with a driver at work and without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from support.asking import ANA, begin, driver, opening, trial, want, without_pruner
from support.simulated_driver import drive, happened, open_unsynced, outcome

from posetune.api import BadInputError
from posetune.study import act_events, events
from posetune.study.acts import requests
from posetune.study.acts.act import (
    Act,
    AddNote,
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
from posetune.study.acts.asking import ask
from posetune.study.acts.deciding import ActRefusedError
from posetune.study.driving.sweep import SweepRun
from posetune.study.old.upgrade import needs_upgrade, upgrade
from posetune.study.reading import read_sweep
from posetune.study.search.rungs import Decision
from posetune.study.tables import schema
from posetune.study.tables.database import Database, open_database


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


def _act_kinds() -> tuple[type, ...]:
    return act_events.ActEvent.__args__  # type: ignore[no-any-return]


def test_every_act_says_who() -> None:
    for cls in _act_kinds():
        assert "by" in cls.__dataclass_fields__, cls
    assert "by" in events.DriverOpened.__dataclass_fields__
