"""Whole sweeps of the toy trainable through the command line, on real Ray."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from posetune.api import BadInputError
from posetune.home import Home
from posetune.study.database import open_database
from posetune.study.rungs import Rungs
from posetune.study.view import read_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow]

Run = Callable[..., subprocess.CompletedProcess[str]]
Show = Callable[[str], dict]


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, as a terminal does."""
    environment = {**os.environ, "POSETUNE_HOME": str(folder / "home"), "COLUMNS": "160"}
    return subprocess.Popen(
        [sys.executable, "-m", "posetune.cli", *map(str, arguments)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_reports(folder: Path, count: int, timeout: float = 90) -> None:
    """Wait until the study holds so many reports."""
    from sqlalchemy import func, select

    from posetune.study import schema

    deadline = time.monotonic() + timeout
    home = Home.resolve(folder / "home")
    while time.monotonic() < deadline:
        with contextlib.suppress(BadInputError):
            database = open_database(home.database, create=False)
            with database.reading() as connection:
                found = connection.execute(select(func.count()).select_from(schema.report)).scalar()
            database.close()
            if (found or 0) >= count:
                return
        time.sleep(0.2)
    raise AssertionError(f"no {count} reports within {timeout} s")


def mlflow_children(folder: Path) -> dict[str, list]:
    """The child runs of the home's MLflow store, by trial number."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'home' / 'mlflow.db'}")
    found: dict[str, list] = {}
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            if "mlflow.parentRunId" in run.data.tags:
                found.setdefault(run.data.tags["posetune.trial"], []).append(run)
    return found


def check_reports(folder: Path, name: str) -> None:
    """No epoch twice, no hole, and the decisions are those of the rungs fed in this order."""
    database = open_database(Home.resolve(folder / "home").database)
    view = read_sweep(database, name)
    epochs: dict[int, list[int]] = {trial.number: [] for trial in view.trials}
    for report in view.reports:
        epochs[report.trial].append(report.epoch)
    assert epochs == {t.number: list(range(1, t.epochs + 1)) for t in view.trials}
    rungs = Rungs(view.spec.pruner, "min", view.spec.sampler.seed)
    found = [rungs.report(r.trial, r.epoch, r.value) for r in view.reports]
    assert found == [r.decision for r in view.reports]
    database.close()


def test_a_sweep_runs_to_its_end_and_is_shown(
    posetune: Run, shown: Show, toy_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    result = posetune("sweep", toy_sweep(trials=8), "--name", "first")
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
    children = mlflow_children(tmp_path)
    runs = {trial["number"]: trial["mlflow_run_id"] for trial in view["trials"]}
    assert {int(n): [r.info.run_id for r in found] for n, found in children.items()} == {
        number: [run] for number, run in runs.items()
    }
    again = posetune("sweep", toy_sweep(trials=8), "--name", "first")
    assert again.returncode == 0
    assert shown("first")["trials"] == view["trials"]


def test_killed_with_its_whole_process_group_a_sweep_continues(
    posetune: Run, shown: Show, toy_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    file = toy_sweep(trials=8, epoch_s=0.3)
    for reports in (1, 6):
        process = start(tmp_path, "sweep", file, "--name", "killed")
        wait_for_reports(tmp_path, reports)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    result = posetune("sweep", file, "--name", "killed")
    assert result.returncode == 0, result.stderr
    view = shown("killed")
    assert view["state"] == "COMPLETE"
    assert [trial["number"] for trial in view["trials"]] == list(range(8))
    check_reports(tmp_path, "killed")
    children = mlflow_children(tmp_path)
    assert {number: len(runs) for number, runs in children.items()} == {
        str(number): 1 for number in range(8)
    }
    assert {runs[0].info.status for runs in children.values()} == {"FINISHED"}


def test_interrupted_by_the_user_a_sweep_says_how_to_continue(
    posetune: Run, shown: Show, toy_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    file = toy_sweep(trials=6, epoch_s=0.5)
    process = start(tmp_path, "sweep", file, "--name", "stopped")
    wait_for_reports(tmp_path, 2)
    begun = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - begun < 20
    assert process.returncode == 130, output
    assert "the same command again continues it" in output
    view = shown("stopped")
    assert view["state"] == "INTERRUPTED"
    assert "RUNNING" not in {trial["state"] for trial in view["trials"]}
    assert posetune("sweep", file, "--name", "stopped").returncode == 0
    assert shown("stopped")["state"] == "COMPLETE"


def test_a_diverging_trial_fails_and_the_sweep_goes_on(
    posetune: Run, shown: Show, toy_sweep: Callable[..., Path]
) -> None:
    file = toy_sweep(trials=6)
    file.write_text(file.read_text().replace("fixed: {", "fixed: {fail_above: 0.2, "))
    assert posetune("sweep", file, "--name", "diverging").returncode == 0
    trials = shown("diverging")["trials"]
    failed = [trial for trial in trials if trial["state"] == "FAILED"]
    assert failed
    assert all("diverged: x = " in trial["reason"] for trial in failed)
    assert all(trial["params"]["x"] > 0.2 for trial in failed)


def test_a_trial_that_kills_every_worker_fails_and_says_so(
    posetune: Run, shown: Show, toy_sweep: Callable[..., Path]
) -> None:
    file = toy_sweep(trials=3)
    text = file.read_text().replace("fixed: {", "fixed: {die_above: 0.29, ")
    file.write_text(text.replace("[0.01, 1], log: true", "[0.01, 0.3]"))
    assert posetune("sweep", file, "--name", "deadly").returncode == 0
    first = shown("deadly")["trials"][0]
    assert (first["state"], first["attempts"]) == ("FAILED", 4)
    assert "its worker died 4 times" in first["reason"]
    assert "no message" not in first["reason"]


def test_a_trial_larger_than_the_cluster_is_refused(
    posetune: Run, toy_sweep: Callable[..., Path]
) -> None:
    result = posetune("sweep", toy_sweep(cpu=1000), "--name", "huge")
    assert result.returncode == 2
    assert "cpu 1000" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_full_disk_pauses_the_sweep_until_there_is_space(
    shown: Show,
    toy_sweep: Callable[..., Path],
    tmp_path: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POSETUNE_STORAGE", str(small_disk))
    process = start(tmp_path, "sweep", toy_sweep(trials=4, epoch_s=0.3), "--name", "full")
    wait_for_reports(tmp_path, 1)
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as filler:
        while True:
            filler.write(bytes(4096))
            filler.flush()
    time.sleep(12)
    assert process.poll() is None
    (small_disk / "filler").unlink()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "no space left for a checkpoint" in output
    view = shown("full")
    assert view["state"] == "COMPLETE"
    assert {trial["attempts"] for trial in view["trials"]} == {1}
