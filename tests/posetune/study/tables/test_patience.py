"""A study database that is away is waited for, as long as was asked for."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from posetune.api import BadInputError
from posetune.home import Home
from posetune.study.tables.database import Database


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
