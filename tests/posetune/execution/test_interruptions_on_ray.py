"""What ends a worker or asks a driver to stop, through real Ray: nothing but time is lost.

One trial at a time, so the sweep must end bit for bit as an undisturbed one does.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select
from support.simulated_driver import outcome

from posetune.home import Home
from posetune.study import schema
from posetune.study.database import Database, open_database
from posetune.study.view import read_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def file(toy_sweep: Callable[..., Path], tmp_path: Path) -> Path:
    """A sweep of one trial at a time, whose processes die when a file says so."""
    file = toy_sweep(trials=3, max_epochs=4, cpu=os.cpu_count() or 1, epoch_s=0.6)
    file.write_text(
        file.read_text().replace("fixed: {", f"fixed: {{die_at: {tmp_path / 'death'}, ")
    )
    return file


def start(folder: Path, home: str, file: Path, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "posetune.cli", "sweep", str(file), "--name", "s"],
        cwd=folder,
        env={**os.environ, "POSETUNE_HOME": str(folder / home), "COLUMNS": "160", **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(folder: Path, home: str, file: Path) -> Database:
    process = start(folder, home, file)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return open_database(Home.resolve(folder / home).database)


def wait_for_reports(folder: Path, home: str, count: int) -> None:
    wait_for(folder, home, schema.report, count)


def wait_for(folder: Path, home: str, table: schema.Table, count: int) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if (folder / home / "study.db").exists():
            database = open_database(Home.resolve(folder / home).database)
            found = rows(database, table)
            database.close()
            if found >= count:
                return
        time.sleep(0.1)
    raise AssertionError(f"no {count} rows of {table.name}")


def rows(database: Database, table: schema.Table) -> int:
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def partial_checkpoints(database: Database) -> list[float]:
    column = schema.checkpoint.c.partial_s
    with database.reading() as connection:
        return list(connection.execute(select(column).where(column.is_not(None))).scalars())


def test_workers_that_are_taken_away_killed_or_out_of_memory_lose_at_most_an_epoch(
    file: Path, tmp_path: Path
) -> None:
    undisturbed = finish(tmp_path, "undisturbed", file)
    process = start(tmp_path, "disturbed", file)
    for reports, how in [(1, "SIGTERM"), (2, "MemoryError"), (3, "SIGKILL"), (5, "SIGTERM")]:
        wait_for_reports(tmp_path, "disturbed", reports)
        death = tmp_path / "death.new"
        death.write_text(how)
        death.replace(tmp_path / "death")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    disturbed = open_database(Home.resolve(tmp_path / "disturbed").database)
    assert outcome(disturbed) == outcome(undisturbed)
    view = read_sweep(disturbed, "s")
    assert sum(trial.attempts for trial in view.trials) == len(view.trials) + 4
    # Two were told to stop and saved half an epoch; it counts, and is not trained again.
    assert len(partial_checkpoints(disturbed)) == 2
    assert all(0.2 < seconds < 0.6 for seconds in partial_checkpoints(disturbed))
    assert rows(disturbed, schema.placement) == len(view.trials) + 4
    assert all(trial.placement["device"] == "cpu" for trial in view.trials)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_driver_told_to_stop_saves_the_epoch_under_way_and_is_out_within_ten_seconds(
    toy_sweep: Callable[..., Path], tmp_path: Path, number: signal.Signals
) -> None:
    file = toy_sweep(trials=2, max_epochs=2, cpu=os.cpu_count() or 1, epoch_s=5.0)
    process = start(tmp_path, "stopped", file)
    wait_for_reports(tmp_path, "stopped", 1)
    time.sleep(2.0)
    begun = time.monotonic()
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - begun < 10
    assert process.returncode == 130, output
    assert f"stopped by {number.name}; the same command again continues it" in output
    database = open_database(Home.resolve(tmp_path / "stopped").database)
    (seconds,) = partial_checkpoints(database)
    assert 1.0 < seconds < 4.0
    finish(tmp_path, "stopped", file)
    with database.reading() as connection:
        column = schema.report.c.seconds
        taken = connection.execute(select(column).order_by(schema.report.c.id)).scalars().all()
    assert taken[1] > 5.0
    assert taken[1] - seconds < 5.0
    assert not list((tmp_path / "stopped").glob("**/stop"))


def test_the_driver_is_out_within_ten_seconds_when_neither_mlflow_nor_the_worker_answers(
    toy_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    file = toy_sweep(trials=2, max_epochs=3, cpu=os.cpu_count() or 1, epoch_s=1.0)
    file.write_text(file.read_text().replace("fixed: {", "fixed: {stuck_above: 0, "))
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and never says a word
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        process = start(tmp_path, "home", file, MLFLOW_TRACKING_URI=address)
        wait_for(tmp_path, "home", schema.placement, 1)
        time.sleep(1.0)
        begun = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert time.monotonic() - begun < 10
    assert process.returncode == 130, output
    assert "the same command again continues it" in output
    assert "MLflow is behind" in output


def test_a_store_that_changes_under_a_running_sweep_stops_it_with_nothing_lost(
    toy_sweep: Callable[..., Path], toy_store: Path, tmp_path: Path
) -> None:
    file = toy_sweep(trials=3, max_epochs=2, cpu=os.cpu_count() or 1, epoch_s=0.5)
    process = start(tmp_path, "home", file)
    wait_for_reports(tmp_path, "home", 1)
    content = (toy_store / "toy.json").read_text()
    (toy_store / "toy.json").write_text('{"image_size": 9}')
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert f"store {toy_store}: has changed under the running sweep" in output
    assert "Traceback" not in output
    view = read_sweep(open_database(Home.resolve(tmp_path / "home").database), "s")
    assert view.state == "INTERRUPTED"
    assert "FAILED" not in {trial.state for trial in view.trials}
    (toy_store / "toy.json").write_text(content)
    assert read_sweep(finish(tmp_path, "home", file), "s").state == "COMPLETE"


def test_a_driver_that_was_replaced_stops_and_says_so(
    toy_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    file = toy_sweep(trials=3, max_epochs=2, cpu=os.cpu_count() or 1, epoch_s=0.5)
    process = start(tmp_path, "home", file)
    wait_for_reports(tmp_path, "home", 1)
    database = open_database(Home.resolve(tmp_path / "home").database)
    database.write(lambda connection: connection.execute(schema.lease.update().values(holder="x")))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "another driver has taken this sweep over" in output
    assert "Traceback" not in output


def test_a_sweep_is_stopped_from_elsewhere_and_its_log_says_what_happened(
    posetune: Callable[..., subprocess.CompletedProcess[str]],
    toy_sweep: Callable[..., Path],
    tmp_path: Path,
) -> None:
    file = toy_sweep(trials=2, max_epochs=2, cpu=os.cpu_count() or 1, epoch_s=6.0)
    file.write_text(file.read_text().replace("fixed: {", "fixed: {say: hello from the trial, "))
    process = start(tmp_path, "home", file)
    wait_for_reports(tmp_path, "home", 1)
    stopped = posetune("stop", "s")
    assert stopped.returncode == 0, stopped.stderr
    assert "INTERRUPTED, stopped by" in stopped.stderr
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    again = posetune("stop", "s")
    assert (again.returncode, "has no driver to stop" in again.stderr) == (2, True)
    log = posetune("logs", "s", "--trial", "0").stderr
    for words in ("asked: x=0.3", "attempt 1 trains on", "epoch 1: ", "handed over within epoch 2"):
        assert words in log
    assert "hello from the trial" in log
    assert "the driver stopped: stopped by" in posetune("logs", "s").stderr
    missing = posetune("logs", "s", "--trial", "7")
    assert (missing.returncode, "--trial 7" in missing.stderr) == (2, True)
