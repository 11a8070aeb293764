"""A study database that is away is waited for, as long as was asked for."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from support.postgres import PostgresServer
from support.simulated_driver import drive, happened, open_unsynced, outcome, simulated_start

from posetune.api import BadInputError
from posetune.home import Home
from posetune.study.driving.sweep import SweepRun
from posetune.study.events import AttemptFailed
from posetune.study.tables.database import Database, open_database


def test_a_driver_waits_ten_minutes_or_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Home.resolve(tmp_path).database_patience_s == 600
    monkeypatch.setenv("POSETUNE_DATABASE_PATIENCE", "0.5")
    home = Home.resolve(tmp_path)
    assert home.database_patience_s == 30
    assert home.environment["POSETUNE_DATABASE_PATIENCE"] == "0.5"
    for wrong in ("soon", "-1", "inf", "nan"):
        monkeypatch.setenv("POSETUNE_DATABASE_PATIENCE", wrong)
        with pytest.raises(BadInputError, match="must be a number of minutes"):
            Home.resolve(tmp_path)


def test_what_comes_back_in_time_is_written_to(tmp_path: Path) -> None:
    away = tmp_path / "away"
    database = Database(create_engine(f"sqlite:///{away / 'study.db'}"), patience_s=600)

    def come_back() -> None:
        while not database.notice:
            time.sleep(0.01)
        away.mkdir()

    thread = threading.Thread(target=come_back)
    thread.start()
    database.write(lambda connection: connection.execute(text("CREATE TABLE there (n INTEGER)")))
    thread.join()
    assert database.notice == ""
    database.close()


def test_what_stays_away_ends_the_waiting(tmp_path: Path) -> None:
    database = Database(create_engine(f"sqlite:///{tmp_path / 'away/study.db'}"), patience_s=0.2)
    with pytest.raises(OperationalError, match="unable to open"):
        database.write(lambda connection: connection.execute(text("SELECT 1")))


@pytest.mark.slow
def test_a_server_that_is_stopped_again_and_again_costs_no_trial(
    stoppable_postgres_server: PostgresServer, tmp_path: Path
) -> None:
    server, steps = stoppable_postgres_server, random.Random(19)
    database = open_database(server.new_database(), patience_s=600)
    stops: list[threading.Thread] = []

    def start_when_it_is_missed() -> None:
        while not database.notice:
            time.sleep(0.01)
        server.start()

    def stop_now_and_then(run: SweepRun) -> None:
        if steps.random() < 0.1 and not any(thread.is_alive() for thread in stops):
            server.stop()
            stops.append(threading.Thread(target=start_when_it_is_missed))
            stops[-1].start()

    drive(database, simulated_start(), slots=2, between=stop_now_and_then)
    for thread in stops:
        thread.join()
    undisturbed = open_unsynced(tmp_path / "undisturbed.db")
    drive(undisturbed, simulated_start(), slots=2)
    assert len(stops) > 2
    assert outcome(database) == outcome(undisturbed)
    assert not happened(database, AttemptFailed)
    database.close()
    undisturbed.close()
