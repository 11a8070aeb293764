"""The embedded store is made once and whole, whoever dies or races."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from posetune.api import BadInputError
from posetune.home import Home
from posetune.storage import open_storage
from posetune.tracking.projection import ship
from posetune.tracking.server import connection
from posetune.tracking.server.connection import public_address, reach_tracking

Shown = dict[str, Any]
Read = Callable[[Home], dict[str, Shown]]

SHIP = """
from posetune.home import Home
from posetune.study.tables.database import open_database
from posetune.tracking.projection import ship
home = Home.model_validate_json(text)
ship(open_database(home.database), "first", home)
"""


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that need not import MLflow anew."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["posetune.tracking.projection"])
    return context


def start_ship(processes: ForkServerContext, home: Home) -> Any:
    process = processes.Process(target=exec, args=(SHIP, {"text": home.model_dump_json()}))
    process.start()
    return process


def count_tables(file: Path) -> int:
    """Tables that are committed; reading must not create the file."""
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
    with contextlib.suppress(sqlite3.Error):
        address = f"file:{file}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=0.01)) as connection:
            return int(connection.execute(query).fetchone()[0])
    return 0


def fresh_home(scene: Any) -> Home:
    """A home whose MLflow store is not made yet."""
    folder = scene.home.folder / f"fresh-{time.monotonic_ns()}"
    return scene.home.model_copy(
        update={"tracking": f"sqlite:///{folder / 'mlflow.db'}", "artifacts": folder / "artifacts"}
    )


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "file": lambda store: store.with_name(".mlflow.db.partial").exists(),
    "journal": lambda store: store.with_name(".mlflow.db.partial-journal").exists(),
    "first tables": lambda store: count_tables(store.with_name(".mlflow.db.partial")) > 0,
    "most tables": lambda store: count_tables(store.with_name(".mlflow.db.partial")) > 30,
    "moved": lambda store: store.exists(),
}


@pytest.mark.long
@pytest.mark.slow
def test_killed_again_and_again_while_the_store_is_made_the_next_ship_works(
    scene: Any, contents: Read, other_home: Callable[[str], Home], processes: ForkServerContext
) -> None:
    """Each process meets what the one before it left; the last is killed right after the move."""
    scene.run_all()
    home = fresh_home(scene)
    store = Path(home.tracking.removeprefix("sqlite:///"))
    for moment, has_come in MOMENTS.items():
        process = start_ship(processes, home)
        while not has_come(store):
            assert process.is_alive(), moment
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, moment

    ship(scene.database, "first", home)
    undisturbed = other_home("undisturbed")
    ship(scene.database, "first", undisturbed)
    assert contents(home) == contents(undisturbed)
    assert {p.name for p in store.parent.glob(".*")} <= {".mlflow.db.lock"}


@pytest.mark.slow
def test_two_processes_at_once_make_one_store_and_one_projection(
    scene: Any, contents: Read, other_home: Callable[[str], Home], processes: ForkServerContext
) -> None:
    scene.run_all()
    home = fresh_home(scene)
    both = [start_ship(processes, home) for _ in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]

    undisturbed = other_home("undisturbed")
    ship(scene.database, "first", undisturbed)
    assert contents(home) == contents(undisturbed)


@pytest.mark.slow
def test_no_connection_stays_with_the_file_that_was_moved(tmp_path: Path) -> None:
    home = Home(
        folder=tmp_path,
        database="",
        storage=open_storage(tmp_path),
        tracking=f"sqlite:///{tmp_path / 'mlflow.db'}",
        artifacts=tmp_path / "artifacts",
    )
    for _ in range(2):  # wiped and made again by one and the same process
        connection._make_sqlite_store(tmp_path / "mlflow.db", home)
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        opened = [link.readlink() for link in links]
        assert not [path for path in opened if path.is_relative_to(tmp_path)]
        assert {p.name for p in tmp_path.iterdir()} == {"mlflow.db", ".mlflow.db.lock"}
        assert count_tables(tmp_path / "mlflow.db") > 30
        (tmp_path / "mlflow.db").unlink()
        (tmp_path / "mlflow.db-wal").write_bytes(b"left behind")


def test_the_store_is_read_while_it_is_written(scene: Any) -> None:
    with contextlib.closing(sqlite3.connect(scene.home.folder / "mlflow.db")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM experiments")
        client = MlflowClient(scene.home.tracking)
        assert [e.name for e in client.search_experiments()] == ["Default"]


@pytest.mark.parametrize("password", ["secret", "se@cret", "se:cret", "%2Fsecret", "s?cret#"])
def test_no_part_of_a_password_is_shown(password: str) -> None:
    line = f"cannot reach http://me:{password}@host:5000/api, nor http://other:80/x"
    assert public_address(line) == "cannot reach http://host:5000/api, nor http://other:80/x"


@pytest.mark.timeout(60)  # MLflow itself tries for two minutes
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("databricks", "MLFLOW_TRACKING_URI: 'databricks' is neither a server nor a database"),
        ("runs/mlflow", "MLFLOW_TRACKING_URI: 'runs/mlflow' is neither a server nor a database"),
        ("sqlite:///FOLDER", "MLflow at sqlite:///.*unable to open database file"),
        ("postgresql+psycopg://nobody@/x?host=/nowhere", "MLflow at postgresql.*No such file"),
    ],
)
def test_a_store_that_is_none_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, said: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("FOLDER", str(tmp_path)))
    with pytest.raises(BadInputError, match=said) as found:
        reach_tracking(Home.resolve(tmp_path))
    assert "\n" not in str(found.value)


def test_a_tracking_server_that_is_away_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach_tracking(Home.resolve(tmp_path))
    assert not list(tmp_path.iterdir())
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:planted@127.0.0.1:{port}")
    with pytest.raises(BadInputError, match=f"MLflow at http://127.0.0.1:{port}: ") as found:
        reach_tracking(Home.resolve(tmp_path))
    assert "planted" not in str(found.value)
    assert "start it or correct MLFLOW_TRACKING_URI" in str(found.value)
