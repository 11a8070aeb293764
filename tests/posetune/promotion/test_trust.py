"""What a reader needs to trust a run is read back from MLflow, and no secret is."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from sqlalchemy import create_engine, inspect, text
from support.commands import Posetune, command_environment, run_here
from support.mlflow_server import MlflowServer

from posetune import provenance
from posetune.home import Home
from posetune.study.tables.database import open_database
from posetune.testing.toy import ToyConfig
from posetune.tracking.projection import ship
from posetune.workflow.sweep import INTERRUPTED_TRACKER_S

Read = Callable[[Home], dict[str, dict[str, Any]]]


def read_text(client: MlflowClient, run: Run, name: str, folder: Path) -> str:
    return Path(client.download_artifacts(run.info.run_id, name, str(folder))).read_text()


@pytest.mark.slow
def test_what_a_reader_needs_to_trust_a_run_is_in_mlflow(
    scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    known = provenance.collect()
    known |= {"commit": "abc123", "dirty": True}
    known["diff"] = {"sha256": "f" * 64, "bytes": 9, "text": "--- a/x\n"}
    known["gpus"] = ["A GPU, 1 MiB, 1.0"]
    scene.provenance = known
    run = scene.open()
    number, attempt = scene.begin(run)
    scene.epoch(run, number, attempt, value=5.0)
    run.close("stopped by SIGINT")
    run = scene.open()
    scene.begin(run)
    report = ship(scene.database, "first", scene.home)

    client = MlflowClient(scene.home.tracking)
    sweep = client.get_run(report.run_id)
    query = f"tags.`mlflow.parentRunId` = '{report.run_id}'"
    (trial,) = client.search_runs([report.experiment_id], query)
    # The sweep file.
    source = read_text(client, sweep, "sweep.yaml", tmp_path)
    assert source == "trainable: posetune.testing.toy:Toy\n"
    # The resolved configuration and the seeds.
    params = {"x": "0.3", "depth": "4", "epoch_s": "0.0"}
    assert params.items() <= trial.data.params.items()
    assert set(trial.data.params) == set(ToyConfig.model_fields)
    assert trial.data.tags["posetune.seed"] == str(run.trials[0].seed)
    assert sweep.data.tags["posetune.seed"] == "0"
    # The code: a commit and what differed from it.
    assert sweep.data.tags["mlflow.source.git.commit"] == "abc123"
    assert sweep.data.tags["posetune.dirty"] == "True"
    assert sweep.data.tags["posetune.diff.sha256"] == "f" * 64
    assert "posetune.diff.text" not in sweep.data.tags
    assert read_text(client, sweep, "code.diff", tmp_path) == "--- a/x\n"
    # The versions of our dependencies, and of everything.
    for package in ("torch", "ray", "optuna", "mlflow", "numpy"):
        assert sweep.data.tags[f"posetune.versions.{package}"] == known["versions"][package]
    assert sweep.data.tags["posetune.python"] == known["python"]
    packages = read_text(client, sweep, "packages.txt", tmp_path).splitlines()
    assert packages == known["packages"]
    # Hardware and threads.
    for name in ("processor", "cores", "usable_cores", "host", "system", "gpus"):
        assert sweep.data.tags[f"posetune.{name}"] == str(known[name])
    assert sweep.data.tags["posetune.threads.OMP_NUM_THREADS"] == "2"
    assert sweep.data.tags["posetune.resources.cpu"] == "1.0"
    assert trial.data.tags["posetune.threads"] == "1"
    # The data.
    assert trial.data.tags["posetune.store_digest"] == "d" * 64
    assert trial.inputs.dataset_inputs[0].dataset.digest == "d" * 36
    # The stages' keys and the attempts.
    assert trial.data.tags["posetune.stage.floor"] == "0" * 64
    assert trial.data.tags["posetune.attempts"] == "2"
    # And all of it once more, for a program.
    kept = json.loads(read_text(client, sweep, "provenance.json", tmp_path))
    assert kept["versions"] == known["versions"]
    assert kept["diff"] == {"sha256": "f" * 64, "bytes": 9, "file": "code.diff"}


def all_rows(address: str) -> Iterator[str]:
    engine = create_engine(address)
    with engine.connect() as connection:
        for table in inspect(engine).get_table_names():
            for row in connection.execute(text(f'SELECT * FROM "{table}"')):
                yield repr(row)
    engine.dispose()


# Drawn, so that the difference of this very file to its commit does not hold them.
DATABASE_SECRET, TRACKING_SECRET = uuid.uuid4().hex, uuid.uuid4().hex


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_passwords_are_nowhere_after_a_sweep_and_its_promotion(
    postgres_database: str,
    running_mlflow_server: MlflowServer,
    ray_head: str,
    toy_sweep: Callable[..., Path],
    tmp_path: Path,
) -> None:
    server = running_mlflow_server  # it asks for no password and ignores the one it gets
    addresses = {
        # PostgreSQL trusts its socket, whatever the password.
        "POSETUNE_DATABASE": postgres_database.replace("@", f":{DATABASE_SECRET}@"),
        "MLFLOW_TRACKING_URI": server.url.replace("://", f"://me:{TRACKING_SECRET}@"),
    }
    output = ""
    for arguments in [
        ("sweep", toy_sweep(trials=3), "--name", "first", "--address", ray_head),
        ("show", "first", "--json"),
        ("track", "first", "--json"),
        ("promote", "first", "--model", "toy"),
        ("show", "no-such-sweep"),
    ]:
        ended = run_here(*arguments, folder=tmp_path, environment=addresses)
        assert ended.returncode == (2 if "no-such-sweep" in arguments else 0), ended.stderr
        output += ended.stdout + ended.stderr
    for away, arguments in [
        ({"MLFLOW_TRACKING_URI": f"http://me:{TRACKING_SECRET}@127.0.0.1:9"}, ("track", "first")),
        ({"POSETUNE_DATABASE": f"postgresql://me:{DATABASE_SECRET}@127.0.0.1:9/x"}, ("show",)),
    ]:
        ended = run_here(*arguments, folder=tmp_path, environment=addresses | away)
        assert ended.returncode == 2
        output += ended.stdout + ended.stderr

    assert "127.0.0.1" in output
    written = {"output": output.encode(), "study": "\n".join(all_rows(postgres_database)).encode()}
    written["mlflow"] = "\n".join(all_rows(server.backend)).encode()
    for root in (tmp_path, server.folder):
        written |= {str(p): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    assert any("server-artifacts" in name for name in written)
    assert b"val/error_mm" in written["study"]
    for secret in (DATABASE_SECRET, TRACKING_SECRET):
        assert [name for name, content in written.items() if secret.encode() in content] == []


@pytest.mark.slow
def test_passwords_are_not_in_a_study_on_sqlite(scene: Any, shown: Read, tmp_path: Path) -> None:
    scene.run_all()
    secret = scene.home.model_copy(
        update={"tracking": f"http://me:{TRACKING_SECRET}@127.0.0.1:9", "folder": tmp_path}
    )
    with pytest.raises(ValueError, match="nothing is lost") as raised:
        ship(scene.database, "first", secret)
    assert TRACKING_SECRET not in str(raised.value)
    ship(scene.database, "first", scene.home)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or TRACKING_SECRET.encode() not in file.read_bytes()


@pytest.mark.long
@pytest.mark.slow
def test_a_study_and_mlflow_on_postgresql_end_as_on_sqlite(
    scene: Any,
    contents: Read,
    other_home: Callable[[str], Home],
    postgres_tracking: Any,
    postgres_database: str,
) -> None:
    scene.database.close()
    scene.database = open_database(postgres_database)  # both in one database
    postgres_tracking.start()
    home = scene.home.model_copy(update={"tracking": postgres_tracking.url})
    run = scene.open()
    run.baselines({"mean_shape": 9.0})
    scene.run_trial(run, 5.0)
    number, attempt = scene.begin(run)
    scene.epoch(run, number, attempt, value=4.0)
    ship(scene.database, "first", home)
    live = contents(home)
    run.close("stopped by SIGTERM")
    run = scene.open()
    number, attempt = scene.begin(run)
    run.fail(number, "diverged")
    scene.run_trial(run, 8.0)
    scene.run_trial(run, 3.0)
    run.close("finished")
    ship(scene.database, "first", home)
    before = contents(home)
    again = ship(scene.database, "first", home)

    assert live["first-001"]["status"] == "RUNNING"
    assert (again.created, again.values, again.uploads) == (0, 0, 0)
    assert contents(home) == before
    undisturbed = other_home("undisturbed")
    ship(scene.database, "first", undisturbed)
    assert before == contents(undisturbed)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        yield listening


def hanging_sweep(tmp_path: Path, silent: socket.socket, *arguments: object) -> dict[str, Any]:
    """How to start a sweep whose MLflow hangs: a process, since it leaves a thread behind."""
    return {
        "args": [sys.executable, "-m", "posetune.cli", "sweep", *map(str, arguments)],
        "cwd": tmp_path,
        "env": {
            **command_environment(tmp_path),
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "600",
        },
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_a_sweep_ends_while_mlflow_hangs_and_is_tracked_later(
    silent: socket.socket,
    ray_head: str,
    posetune: Posetune,
    toy_sweep: Callable[..., Path],
    migrated_home: Path,
    tmp_path: Path,
    contents: Read,
) -> None:
    given = (toy_sweep(trials=4), "--name", "first", "--address", ray_head)
    ended = subprocess.run(**hanging_sweep(tmp_path, silent, *given))
    assert ended.returncode == 0, ended.stdout
    assert "bring it up to date: posetune track first" in ended.stdout

    later = posetune("track", "first")
    assert later.returncode == 0, later.stderr
    runs = contents(Home.resolve(migrated_home))
    assert len(runs) == 5
    assert {run["status"] for run in runs.values()} == {"FINISHED"}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_interrupted_while_mlflow_hangs_a_sweep_is_out(
    silent: socket.socket, ray_head: str, toy_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    """It is out soon: how long it waits for a tracker is in `test_tracker`."""
    file = toy_sweep(trials=400, max_epochs=27, epoch_s=1.0)  # far from done when it is stopped
    given = (file, "--name", "first", "--address", ray_head)
    start = hanging_sweep(tmp_path, silent, *given)
    with subprocess.Popen(**start, start_new_session=True) as sweep:
        silent.accept()
        time.sleep(INTERRUPTED_TRACKER_S + 0.5)  # it hangs for longer than the end has time
        os.kill(sweep.pid, signal.SIGINT)
        output, _ = sweep.communicate()
    assert sweep.returncode == 130, output
    assert "the same command again continues it" in output
    assert "posetune track first" in output
    assert "MLflow is behind (it has been busy for" in output
