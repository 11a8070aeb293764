"""Whether a sweep could open its study, found out without making anything."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from posetune.api import BadInputError
from posetune.study.tables.database import open_database, reach_database


def test_a_database_that_is_away_is_named_without_its_password(
    free_port: Callable[[], int],
) -> None:
    port = free_port()
    with pytest.raises(BadInputError, match=f"127.0.0.1:{port}/study: cannot be reached") as found:
        reach_database(f"postgresql+psycopg://me:planted@127.0.0.1:{port}/study")
    assert "planted" not in str(found.value)
    assert "start it, or correct POSETUNE_DATABASE" in str(found.value)


def test_a_database_is_reached_without_making_anything(
    tmp_path: Path, postgres_database: str
) -> None:
    reach_database(f"sqlite:///{tmp_path / 'new' / 'study.db'}")
    assert not (tmp_path / "new").exists()
    reach_database(postgres_database)
    engine = create_engine(postgres_database)
    assert inspect(engine).get_table_names() == []
    with engine.begin() as connection:
        name = postgres_database.partition("?")[0].rpartition("/")[2]
        connection.execute(text(f"CREATE ROLE {name}_reader LOGIN"))
    engine.dispose()
    reader = postgres_database.replace("postgres@", f"{name}_reader@")
    with pytest.raises(BadInputError, match="its user may make no tables; grant CREATE"):
        reach_database(reader)
    open_database(postgres_database).close()
    reach_database(postgres_database)


def test_a_database_that_another_process_is_making_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "study.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as maker:
        maker.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(time, "sleep", lambda seconds: maker.rollback())
        open_database(f"sqlite:///{file}").close()
        assert not maker.in_transaction
