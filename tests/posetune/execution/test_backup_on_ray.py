"""A real sweep that is backed up while it trains, and killed, goes on in another home."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from support.commands import run_here
from support.simulated_driver import outcome
from support.sweeps import Driver, Script

from posetune.study.tables.database import open_database


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_a_sweep_that_is_backed_up_and_killed_ends_elsewhere_bit_for_bit(
    undisturbed: str,
    compared_sweep: Callable[..., Path],
    migrated_home: Path,
    bucket: str,
    postgres_database: str,
    other_postgres_database: str,
    tmp_path: Path,
) -> None:
    script = Script(tmp_path / "script", "go", "go", "wait")
    sweep = ("sweep", compared_sweep(script=str(script.file)), "--name", "s")
    here = {"POSETUNE_STORAGE": f"{bucket}/here", "POSETUNE_DATABASE": postgres_database}
    there = {"POSETUNE_STORAGE": f"{bucket}/there", "POSETUNE_DATABASE": other_postgres_database}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    driver = Driver(tmp_path, *sweep, **here)
    driver.until(script.is_over)  # within the third epoch
    made = run_here(
        *("backup", "--to", f"{bucket}/backup", "--json"), folder=tmp_path, environment=here
    )
    driver.kill()
    script.let_go()
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["missing"] == []
    assert json.loads(made.stdout)["checkpoints"] > 0

    restored = run_here("restore", f"{bucket}/backup", folder=elsewhere, environment=there)
    assert restored.returncode == 0, restored.stderr
    finished = run_here(*sweep, folder=elsewhere, environment=there)
    assert finished.returncode == 0, finished.stderr

    database = open_database(other_postgres_database, create=False)
    assert outcome(database) == undisturbed
    database.close()
    client = mlflow.MlflowClient(f"sqlite:///{elsewhere / 'home' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name.startswith("posetune/")]
    states = {
        run.data.tags["posetune.trial"]: run.info.status
        for run in client.search_runs([experiment.experiment_id])
        if "posetune.trial" in run.data.tags
    }
    assert states == {str(number): "FINISHED" for number in range(3)}
