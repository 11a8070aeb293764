"""How far a tracking server is behind a sweep, as the study keeps it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sqlalchemy import inspect
from support.simulated_driver import open_unsynced, simulated_start

from posetune.study.driving.sweep import SweepRun
from posetune.study.tables.database import Database
from posetune.study.tables.shipped import (
    begin_shipping,
    forget,
    note_shipped,
    read_lags,
)

SERVER, OTHER = "http://mlflow:5000", "http://other:5000"
OLD = Path(__file__).parents[1] / "before" / "study_v2.db"


@pytest.fixture
def run(database: Database) -> SweepRun:
    """A sweep with three events, the times of which are 1000, 1001 and 1002."""
    times = iter(range(1000, 1100))
    run = SweepRun(database, simulated_start(), lambda: float(next(times)))
    run.wait_for_room("needs a GPU")
    assert run.state.seq == 3
    return run


def lags(database: Database) -> dict[str, tuple[int, bool]]:
    """How many events each sweep's server lacks, and whether a time is named."""
    with database.reading() as connection:
        return {n: (lag.events, lag.since is not None) for n, lag in read_lags(connection).items()}


def test_a_sweep_that_nobody_ships_has_no_lag(database: Database, run: SweepRun) -> None:
    assert lags(database) == {}


def test_a_lag_counts_what_is_new_and_names_the_oldest(database: Database, run: SweepRun) -> None:
    begin_shipping(database, run.id, SERVER)
    with database.reading() as connection:
        (never,) = read_lags(connection).values()
    assert never.events == 3

    note_shipped(database, run.id, SERVER, 3)
    assert lags(database) == {run.name: (0, False)}
    run.wait_for_room("")
    run.wait_for_room("needs two GPUs")
    with database.reading() as connection:
        (behind,) = read_lags(connection).values()
    assert behind.events == 2
    assert never.since is not None
    assert behind.since is not None
    assert behind.since > never.since


def test_an_older_view_takes_nothing_back_and_another_server_begins_anew(
    database: Database, run: SweepRun
) -> None:
    note_shipped(database, run.id, SERVER, 3)
    note_shipped(database, run.id, SERVER, 2)
    begin_shipping(database, run.id, SERVER)
    assert lags(database) == {run.name: (0, False)}

    begin_shipping(database, run.id, OTHER)
    assert lags(database) == {run.name: (3, True)}


def test_a_sweep_that_was_deleted_is_forgotten(database: Database, run: SweepRun) -> None:
    begin_shipping(database, run.id, SERVER)
    database.write(lambda connection: forget(connection, run.id))
    assert lags(database) == {}


def test_a_study_of_the_tables_before_stays_as_it_is(tmp_path: Path) -> None:
    old = open_unsynced(Path(shutil.copy(OLD, tmp_path / "study.db")))
    before = inspect(old.engine).get_table_names()
    note_shipped(old, 1, SERVER, 3)
    assert inspect(old.engine).get_table_names() == before
    assert lags(old) == {}
