"""A real cluster that loses a worker node, the driver and its head: every trial ends up once.

Several `ray start` on one machine, each with an address of its own on loopback, with token
authentication; the study and MLflow are kept in PostgreSQL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from support.simulated_driver import happened

from posetune.study.events import Reported
from posetune.study.reading import read_sweep
from posetune.study.tables import schema
from posetune.study.tables.database import Database, open_database

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

TRIALS, EPOCHS, SAY = 8, 4, "an epoch begins"


def rows(database: Database, table: Any) -> list[Any]:
    with database.reading() as connection:
        return list(connection.execute(select(table)))


def wait_for_reports(database: Database, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while True:
        found = len(happened(database, Reported))
        if found >= count:
            return
        assert process.poll() is None, "the sweep has ended too soon"
        assert time.monotonic() < deadline, f"{found} of {count} reports"
        time.sleep(0.1)


@pytest.mark.timeout(900)
def test_a_sweep_outlives_a_node_its_driver_and_its_head_and_every_trial_is_there_once(
    ray_cluster: Any,
    toy_sweep: Callable[..., Path],
    postgres_database: str,
    other_postgres_database: str,
    mlflow_server: Callable[..., Any],
) -> None:
    file = toy_sweep(trials=TRIALS, max_epochs=EPOCHS, epoch_s=1.0)
    text = file.read_text().replace("name: asha", "name: none")
    file.write_text(text.replace("fixed: {", f"fixed: {{say: {SAY}, "))
    tracking = mlflow_server(other_postgres_database)
    tracking.start()
    cluster = ray_cluster
    cluster.environment |= {
        "POSETUNE_DATABASE": postgres_database,
        "MLFLOW_TRACKING_URI": tracking.url,
    }
    cluster.start_head()
    doomed, _ = cluster.start_workers(2)
    output = cluster.folder / "output"
    with output.open("w") as log:
        command = ["submit", str(file), "--address", cluster.address, "--name", "s", "--follow"]
        following = subprocess.Popen(
            [sys.executable, "-m", "posetune.cli", *command],
            cwd=cluster.folder,
            env=cluster.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        database = open_database(postgres_database)
        wait_for_reports(database, 4, following)
        doomed.kill()
        cluster.start_workers(1)
        wait_for_reports(database, 12, following)
        (driver,) = rows(database, schema.lease)
        os.kill(driver.pid, signal.SIGKILL)
        wait_for_reports(database, 20, following)
        cluster.stop()
        cluster.start_head()
        cluster.start_workers(1)
        assert following.wait(timeout=240) == 0
    finally:
        following.kill()
        print(output.read_text())
    check_sweep(database, cluster)
    check_output(output.read_text(), tracking.url, cluster.address)
    behind = cluster.posetune("track", "s")  # the driver gave it eight seconds
    assert behind.returncode == 0, behind.stderr
    check_mlflow(tracking.url)


def check_sweep(database: Database, cluster: Any) -> None:
    view = read_sweep(database, "s")
    assert [trial.number for trial in view.trials] == list(range(TRIALS))
    assert {trial.state for trial in view.trials} == {"COMPLETE"}
    assert sum(trial.attempts for trial in view.trials) > TRIALS
    for trial in view.trials:
        assert trial.epochs == EPOCHS
        printed = cluster.folder / "home" / "storage" / "logs" / "s" / f"{trial.number:05d}.log"
        begun = printed.read_text().count(SAY)
        assert EPOCHS <= begun <= EPOCHS + trial.attempts - 1, "more than one epoch repeated"
    reported = [(event.trial, event.epoch) for event in happened(database, Reported)]
    assert len(reported) == len(set(reported)) == TRIALS * EPOCHS


def check_output(output: str, tracking: str, dashboard: str) -> None:
    assert f"Ray: {dashboard}/#/jobs/posetune-s-1" in output
    assert f"MLflow: {tracking}/#/experiments/" in output
    assert "the driver has died; sweep s continues as job posetune-s-2" in output
    assert f"{dashboard} does not answer; waiting up to 10 min for the head" in output
    assert "the head has restarted; sweep s continues as job posetune-s-1" in output
    assert f"{TRIALS} of {TRIALS} trials" in output


def check_mlflow(tracking: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments)
    names = sorted(run.info.run_name for run in runs)
    assert names == ["s", *(f"s-{number:03d}" for number in range(TRIALS))]
    assert {run.info.status for run in runs} == {"FINISHED"}
