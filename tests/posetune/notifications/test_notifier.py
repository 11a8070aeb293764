"""The outbox: every message arrives, whoever is away and whoever is killed."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, inspect, text
from support.receivers import HttpReceiver, SmtpReceiver
from support.simulated_driver import SimulatedTrial, open_unsynced, simulated_start
from support.waiting import wait_until

from posetune.home import Home
from posetune.notifications import delivery, outbox
from posetune.notifications import notifier as notifier_module
from posetune.notifications.delivery import Sender, count_waiting, record_destinations, send_waiting
from posetune.notifications.messages import Narrator
from posetune.notifications.notifier import Notifier
from posetune.spec.notify import Destination
from posetune.spec.sweep import SweepSpec
from posetune.study.driving.sweep import SweepRun
from posetune.study.forecasting.forecast import Forecaster
from posetune.study.reading import read_sweep
from posetune.study.search.rungs import Decision
from posetune.study.tables import journal
from posetune.study.tables.database import Database

SMALL = {"pruner": {"max_epochs": 3, "reduction_factor": 2}, "budget": {"trials": 4}}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier_module, "PERIOD_S", 0.02)
    for name in ("FIRST_PAUSE_S", "LONGEST_PAUSE_S"):
        monkeypatch.setattr(delivery, name, 0.02)


def run_on(run: SweepRun, after_step: Callable[[], Any] = lambda: None) -> None:
    """Run what is left of a sweep; its trial 1 fails."""
    while (trial := run.next_trial()) is not None:
        under_way = SimulatedTrial(run, trial.number)
        if trial.number == 1:
            run.fail(1, "diverged")
            after_step()
            continue
        while under_way.step() == Decision.CONTINUE:
            after_step()
        after_step()
    run.close("finished")
    after_step()


def ids_in_the_journal(database: Database) -> list[str]:
    """The ids of all messages that the events of the sweep give."""
    with database.reading() as connection:
        row = journal.find_sweep(connection, "s")
        assert row is not None
        narrator = Narrator("s", row["at"], SweepSpec.model_validate(row["spec"]))
        return [
            message.id
            for event in journal.read_events(connection, row["id"])
            for message in narrator.take(event)
        ]


def test_servers_that_are_away_get_every_message_when_they_are_back(
    database: Database,
    notify_home: Home,
    http: HttpReceiver,
    webhook: Destination,
    smtp: SmtpReceiver,
    mail: Destination,
) -> None:
    run = SweepRun(database, simulated_start(**SMALL))
    notifier = Notifier(database, notify_home)
    notifier.follow(run.id, [webhook, mail])
    notifier.start()
    run_on(run)
    wait_until(lambda: len(notifier.waiting) == 2, "messages that wait")
    expected = ids_in_the_journal(database)
    assert [one.partition("/")[2].partition("/")[2] for one in expected].count("failed") == 1
    assert expected[-1].endswith("/ended")

    http.start()
    wait_until(lambda: [*notifier.waiting] == [mail.key], "the webhook's messages")
    assert http.ids == expected
    smtp.start()
    assert notifier.stop(300.0)
    assert http.ids == expected
    assert [one["X-Posetune-Id"] for one in smtp.taken] == expected
    assert count_waiting(database) == {}


def test_the_driver_waits_for_nobody_and_what_is_left_is_sent_later(
    database: Database, notify_home: Home, http: HttpReceiver, webhook: Destination
) -> None:
    run = SweepRun(database, simulated_start(**SMALL))
    notifier = Notifier(database, notify_home)
    notifier.follow(run.id, [webhook])
    notifier.start()
    run_on(run)
    assert not notifier.stop(300.0)
    expected = ids_in_the_journal(database)

    ((name, waiting),) = count_waiting(database, "s").items()
    assert name == webhook.key == f"webhook {http.url}"
    assert waiting[:2] == (len(expected), "no connection to 127.0.0.1 (Connection refused)")
    begun = read_sweep(database, "s").started
    assert begun <= waiting.since <= time.time()
    report = send_waiting(database, notify_home)
    assert (report.sent, report.waiting) == (0, {name: waiting})
    http.start()
    report = send_waiting(database, notify_home)
    assert (report.sent, report.waiting) == (len(expected), {})
    assert http.ids == expected
    assert send_waiting(database, notify_home).sent == 0


def test_the_next_driver_sends_what_a_sweep_before_has_left(
    database: Database, notify_home: Home, http: HttpReceiver, webhook: Destination
) -> None:
    run = SweepRun(database, simulated_start(**SMALL))
    record_destinations(database, notify_home, run.id, [webhook])
    run_on(run)  # its driver is killed before it has read a thing
    expected = ids_in_the_journal(database)
    assert count_waiting(database)[webhook.key].number == len(expected)

    http.start()
    other = simulated_start(**SMALL)
    following = SweepRun(database, type(other)(**{**vars(other), "name": "next"}))
    record_destinations(database, notify_home, following.id, [])
    Sender(database, notify_home, own=following.id).advance()
    following.lease.release()
    assert http.ids == expected


def test_a_sweep_with_a_live_driver_is_left_to_it(
    database: Database, notify_home: Home, http: HttpReceiver, webhook: Destination
) -> None:
    http.start()
    run = SweepRun(database, simulated_start(**SMALL))
    record_destinations(database, notify_home, run.id, [webhook])
    SimulatedTrial(run, run.next_trial().number).step()
    assert send_waiting(database, notify_home).sent == 0
    run.lease.release()
    assert send_waiting(database, notify_home).sent == 1


def test_an_answer_that_is_lost_repeats_a_message_with_its_id(
    database: Database, notify_home: Home, http: HttpReceiver, webhook: Destination
) -> None:
    http.lost = 1
    http.start()
    run = SweepRun(database, simulated_start(**SMALL))
    record_destinations(database, notify_home, run.id, [webhook])
    SimulatedTrial(run, run.next_trial().number).step()
    sender = Sender(database, notify_home, own=run.id)
    sender.advance()
    sender.advance(is_last=True)
    sender.advance(is_last=True)
    run.lease.release()
    assert http.ids == 2 * ids_in_the_journal(database)


def test_each_destination_gets_the_events_that_it_asks_for(
    database: Database, notify_home: Home, http: HttpReceiver, webhook: Destination
) -> None:
    http.start()
    few = webhook.model_copy(update={"events": ("failed",)})
    (notify_home.folder / "posetune.yaml").write_text(
        f"notify:\n- {{webhook: {http.url}/home, events: [ended]}}\n"
    )
    run = SweepRun(database, simulated_start(**SMALL))
    record_destinations(database, notify_home, run.id, [few])
    run_on(run)
    send_waiting(database, notify_home)
    assert [(r.path, r.content["type"]) for r in http.taken] == [
        ("/", "failed"),
        ("/home", "ended"),
    ]


def test_what_waits_goes_to_the_new_address_of_a_named_destination(
    database: Database, notify_home: Home, http: HttpReceiver, webhook: Destination
) -> None:
    wrong = webhook.model_copy(update={"webhook": "http://127.0.0.1:9", "name": "ops"})
    run = SweepRun(database, simulated_start(**SMALL))
    record_destinations(database, notify_home, run.id, [wrong])
    run_on(run)
    send_waiting(database, notify_home)
    http.start()
    again = SweepRun(database, simulated_start(**SMALL, notify=[{"webhook": http.url}]))
    right = webhook.model_copy(update={"name": "ops"})
    record_destinations(database, notify_home, again.id, [right])
    again.close("finished")
    send_waiting(database, notify_home)
    assert http.ids == ids_in_the_journal(database)


def test_what_waits_for_a_destination_that_is_gone_is_forgotten(
    database: Database, notify_home: Home, webhook: Destination, mail: Destination
) -> None:
    run = SweepRun(database, simulated_start(**SMALL))
    record_destinations(database, notify_home, run.id, [webhook, mail])
    run_on(run)
    send_waiting(database, notify_home)
    assert [*count_waiting(database)] == [webhook.key, mail.key]
    record_destinations(database, notify_home, run.id, [mail])
    assert [*count_waiting(database)] == [mail.key]


def test_what_only_the_clock_says_is_told_once(
    database: Database, notify_home: Home, http: HttpReceiver, webhook: Destination
) -> None:
    """A trial waits for ten minutes, and the forecast passes 80 % of the hours."""
    http.start()
    ticks = itertools.count(1000.0)
    budget = {"trials": 40, "wall_hours": 0.01}
    opening = simulated_start(budget=budget)
    run = SweepRun(database, opening, clock=lambda: next(ticks))
    record_destinations(database, notify_home, run.id, [webhook])
    SimulatedTrial(run, run.next_trial().number).step()
    run.wait_for_room("gpu 1: no node has it")
    for _ in range(2):  # the second time as a driver that was started again
        sender = Sender(database, notify_home, own=run.id, forecaster=Forecaster(first_s=0.0))
        sender.advance()
        sender.advance()
    run.lease.release()
    assert [one.content["type"] for one in http.taken] == ["new_best", "waiting", "budget"]
    assert http.taken[-1].content["data"]["limit"] == "wall_hours"


def test_a_study_without_destinations_stays_as_it_is(database: Database, notify_home: Home) -> None:
    tables = inspect(database.engine).get_table_names()
    run = SweepRun(database, simulated_start(**SMALL))
    notifier = Notifier(database, notify_home)
    notifier.follow(run.id, [])
    notifier.start()
    run_on(run)
    assert notifier.stop(300.0)
    assert inspect(database.engine).get_table_names() == tables


class Recorder(Database):
    """Keeps a copy of the study as each write leaves it, and what had arrived by then."""

    def __init__(self, database: Database, folder: Path, http: HttpReceiver) -> None:
        super().__init__(database.engine)
        self.folder, self.http = folder, http
        self.arrived: list[list[str]] = []

    def write(self, change: Callable[[Connection], Any]) -> Any:
        result = super().write(change)
        if threading.current_thread() is threading.main_thread():
            self.arrived.append(self.http.ids)
            copy_to = self.folder / f"{len(self.arrived)}.db"
            with (
                contextlib.closing(sqlite3.connect(str(self.engine.url.database))) as source,
                contextlib.closing(sqlite3.connect(copy_to)) as copy,
            ):
                source.backup(copy)
        return result


def forget_lease(database: Database) -> None:
    """The killed process is this one, which lives on; so the lease must be taken by hand."""
    with database.engine.begin() as connection:
        connection.execute(text("DELETE FROM lease"))


@pytest.mark.slow
def test_killed_at_any_write_no_message_is_lost(
    tmp_path: Path, notify_home: Home, http: HttpReceiver, webhook: Destination
) -> None:
    """Once nobody drives the sweep any more, and once the next driver goes on with it."""
    http.start()
    recorder = Recorder(open_unsynced(tmp_path / "whole.db"), tmp_path, http)
    run = SweepRun(recorder, simulated_start(**SMALL))
    record_destinations(recorder, notify_home, run.id, [webhook])
    run_on(run, Sender(recorder, notify_home, own=run.id).advance)
    assert http.ids == ids_in_the_journal(recorder)
    assert len(recorder.arrived) > 40

    for at, arrived in enumerate(recorder.arrived, start=1):
        database = open_unsynced(tmp_path / f"{at}.db")
        forget_lease(database)
        http.taken.clear()
        send_waiting(database, notify_home)
        sent = http.ids
        assert {*arrived, *sent} == {*ids_in_the_journal(database)}, at
        assert len({*arrived} & {*sent}) <= 1, at  # killed between its arrival and the note of it

        run = SweepRun(database, simulated_start(**SMALL))
        record_destinations(database, notify_home, run.id, [webhook])
        run_on(run, Sender(database, notify_home, own=run.id).advance)
        assert {*arrived, *http.ids} == {*ids_in_the_journal(database)}, at
        assert len(http.ids) == len({*http.ids}), at
        assert count_waiting(database) == {}
        database.close()


def test_a_pass_that_fails_reads_the_same_events_again(
    tmp_path: Path, notify_home: Home, http: HttpReceiver, webhook: Destination
) -> None:
    class Stumbling(Database):
        """Cannot be written to at first."""

        fails = True

        def write(self, change: Callable[[Connection], Any]) -> Any:
            if self.fails:
                self.fails = False
                raise OSError("no space left")
            return super().write(change)

    http.start()
    database = open_unsynced(tmp_path / "study.db")
    run = SweepRun(database, simulated_start(**SMALL))
    record_destinations(database, notify_home, run.id, [webhook])
    SimulatedTrial(run, run.next_trial().number).step()
    sender = Sender(Stumbling(database.engine), notify_home, own=run.id)
    with pytest.raises(OSError, match="no space left"):
        sender.advance()
    sender.advance()
    run.lease.release()
    assert http.ids == ids_in_the_journal(database) != []


def test_one_process_sends_at_a_time(
    database: Database, notify_home: Home, webhook: Destination
) -> None:
    run = SweepRun(database, simulated_start(**SMALL))
    record_destinations(database, notify_home, run.id, [webhook])
    run.lease.release()
    with delivery._turn(notify_home) as is_ours:
        assert is_ours
        assert Sender(database, notify_home).advance() is None
    assert Sender(database, notify_home).advance() is not None


def test_the_outbox_keeps_no_secret(
    database: Database, notify_home: Home, webhook: Destination, planted: str
) -> None:
    run = SweepRun(database, simulated_start(**SMALL))
    record_destinations(database, notify_home, run.id, [webhook])
    run_on(run)
    send_waiting(database, notify_home)
    with database.engine.connect() as connection:
        names = inspect(connection).get_table_names()
        rows = [connection.execute(text(f"SELECT * FROM {name}")).all() for name in names]
        assert outbox.has_tables(connection)
    assert webhook.key in repr(rows)
    assert planted not in repr(rows)
