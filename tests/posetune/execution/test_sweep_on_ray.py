"""Whole sweeps of the toy trainable through the command line, on real Ray."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from support.commands import Posetune
from support.sweeps import Driver, Script

pytestmark = [pytest.mark.ray, pytest.mark.slow]

Show = Callable[[str], dict]
Write = Callable[..., Path]


def mlflow_children(home: Path) -> dict[int, list[str]]:
    """The child runs of the home's MLflow store, by trial number."""
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    found: dict[int, list[str]] = {}
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            if "mlflow.parentRunId" in run.data.tags:
                found.setdefault(int(run.data.tags["posetune.trial"]), []).append(run.info.run_id)
    return found


def test_a_sweep_runs_to_its_end_and_is_shown(
    posetune: Posetune, shown: Show, toy_sweep: Write, ray_head: str, migrated_home: Path
) -> None:
    command = ("sweep", toy_sweep(trials=8, concurrent=2), "--name", "first")
    result = posetune(*command, "--address", ray_head)
    assert result.returncode == 0, result.stderr
    view = shown("first")
    assert (view["name"], view["state"], len(view["trials"])) == ("first", "COMPLETE", 8)
    assert view["baselines"] == {"start": 2.0}
    depths = {trial["params"]["depth"] for trial in view["trials"]}
    assert view["stages"] == {"floor": {"trained": len(depths), "reused": 8 - len(depths)}}
    states = {trial["state"] for trial in view["trials"]}
    assert states == {"COMPLETE", "PRUNED"}
    complete = [t for t in view["trials"] if t["state"] == "COMPLETE"]
    assert view["best"]["value"] == min(t["value"] for t in complete)
    runs = {trial["number"]: [trial["mlflow_run_id"]] for trial in view["trials"]}
    assert mlflow_children(migrated_home) == runs
    again = posetune(*command, "--address", ray_head)
    assert again.returncode == 0
    assert shown("first")["trials"] == view["trials"]


@pytest.mark.long
def test_a_diverging_trial_fails_and_the_sweep_goes_on(
    posetune: Posetune, shown: Show, toy_sweep: Write, ray_head: str
) -> None:
    file = toy_sweep(trials=6, fail_above=0.2)
    command = ("sweep", file, "--name", "diverging", "--address", ray_head, "--no-tracking")
    assert posetune(*command).returncode == 0
    trials = shown("diverging")["trials"]
    failed = [trial for trial in trials if trial["state"] == "FAILED"]
    assert failed
    assert all("diverged: x = " in trial["reason"] for trial in failed)
    assert all(trial["params"]["x"] > 0.2 for trial in failed)


@pytest.mark.long
def test_a_trial_that_kills_every_worker_fails_and_says_so(
    posetune: Posetune, shown: Show, toy_sweep: Write, ray_head: str
) -> None:
    file = toy_sweep(trials=2, max_epochs=2, die_above=0.29)
    file.write_text(file.read_text().replace("[0.01, 1], log: true", "[0.01, 0.3]"))
    command = ("sweep", file, "--name", "deadly", "--address", ray_head, "--no-tracking")
    assert posetune(*command).returncode == 0
    first, second = shown("deadly")["trials"]
    assert (first["state"], first["attempts"]) == ("FAILED", 4)
    assert "its worker died 4 times" in first["reason"]
    assert "no message" not in first["reason"]
    assert second["state"] == "COMPLETE"


def test_a_trial_larger_than_the_machine_is_refused(posetune: Posetune, toy_sweep: Write) -> None:
    result = posetune("sweep", toy_sweep(cpu=1000), "--name", "huge", "--no-tracking")
    assert result.returncode == 2
    assert "cpu 1000" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.long
def test_a_full_disk_pauses_the_sweep_until_there_is_space(
    shown: Show, toy_sweep: Write, ray_head: str, tmp_path: Path, small_disk: Path
) -> None:
    script = Script(tmp_path / "script", "go", "wait")
    file = toy_sweep(trials=2, max_epochs=2, concurrent=1, script=str(script.file))
    command = ("sweep", file, "--name", "full", "--address", ray_head, "--no-tracking")
    driver = Driver(tmp_path, *command, POSETUNE_STORAGE=str(small_disk))
    driver.until(script.is_over)
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as filler:
        while True:
            filler.write(bytes(4096))
            filler.flush()
    script.let_go()
    driver.until(lambda: "no space left for a checkpoint" in driver.output)
    (small_disk / "filler").unlink()
    assert driver.end() == 0, driver.output
    view = shown("full")
    assert view["state"] == "COMPLETE"
    assert {trial["attempts"] for trial in view["trials"]} == {1}
