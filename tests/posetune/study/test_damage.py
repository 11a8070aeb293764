"""A study database that is damaged is recognised and named."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from support.simulated_driver import drive, open_unsynced, outcome
from support.simulated_driver import simulated_start as sweep_start

from posetune.api import BadInputError
from posetune.study.driving.sweep import SweepRun
from posetune.study.reading import read_sweep
from posetune.study.tables.database import open_database


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(BadInputError, match="damaged or no study"):
        open_database(f"sqlite:///{file}")


def test_a_page_damaged_between_two_lives_is_recognised(tmp_path: Path) -> None:
    """Whatever page is overwritten: named, or of no consequence; never a traceback."""
    whole = open_unsynced(tmp_path / "whole.db")
    drive(whole, sweep_start())
    expected = outcome(whole)
    with whole.engine.begin() as connection:
        connection.execute(text("DELETE FROM lease"))
    whole.close()  # the last connection moves everything from the log into the file
    content = (tmp_path / "whole.db").read_bytes()
    said = []
    for page in range(len(content) // 4096):
        damaged = bytearray(content)
        damaged[page * 4096 : (page + 1) * 4096] = b"\x5a" * 4096
        file = tmp_path / f"{page}.db"
        file.write_bytes(damaged)
        try:
            database = open_database(f"sqlite:///{file}")
            SweepRun(database, sweep_start()).lease.release()
        except BadInputError as error:
            said.append(str(error))
        else:
            assert outcome(database) == expected, page
    assert len(said) > 10
    assert all("is damaged" in text and "restore it from a backup" in text for text in said)


def test_a_value_that_cannot_be_read_is_named_as_damage(tmp_path: Path) -> None:
    database = open_unsynced(tmp_path / "study.db")
    drive(database, sweep_start())
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE event SET data = '{' WHERE seq = 9"))
    with pytest.raises(BadInputError, match="is damaged"):
        SweepRun(database, sweep_start())
    with pytest.raises(BadInputError, match="is damaged"):
        read_sweep(database, "s")
