"""A sweep with its storage and its store on a real S3 server ends as one with folders does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import run_here
from support.simulated_driver import happened, outcome
from support.sweeps import Driver, Script, beside, open_study, partial_seconds, until

from posetune.execution import preemption
from posetune.storage import open_storage
from posetune.study.events import StageUsed, TrialEnded
from posetune.study.reading import read_sweep

Write = Callable[..., Path]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_a_sweep_on_s3_that_is_killed_and_stopped_ends_bit_for_bit_as_one_in_a_folder(
    undisturbed: str,
    compared_sweep: Write,
    toy_store: Path,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray of its own each time: a worker inherits the keys, a cluster's nodes have theirs."""
    monkeypatch.setattr(preemption, "HAND_OVER_S", 200.0)
    script = Script(tmp_path / "script", "go", "wait", "wait")
    file = compared_sweep(script=str(script.file), say="hello from a worker")
    home = tmp_path / "home"

    remote = open_storage(bucket)
    with remote.writing("stores/toy") as folder:
        shutil.copytree(toy_store, folder, dirs_exist_ok=True)
    on_s3 = {"POSETUNE_STORAGE": f"{bucket}/runs"}
    store = ("--store", f"{bucket}/stores/toy")
    sweep = ("sweep", file, "--name", "s", *store, "--no-tracking")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return run_here(*arguments, folder=tmp_path, environment=on_s3)

    driver = Driver(tmp_path, *sweep, **on_s3)
    driver.until(lambda: len(script.lines) < 2)  # within the second epoch
    driver.kill()

    def stop() -> None:
        until(script.is_over)
        os.kill(os.getpid(), signal.SIGTERM)

    with beside(stop):
        stopped = run(*sweep)
    assert stopped.returncode == 130, stopped.stderr
    assert len(partial_seconds(home)) == 1
    finished = run(*sweep)
    assert finished.returncode == 0, finished.stderr

    stages = remote.children("runs/stages/floor")
    used = json.loads(run("stages", "--json").stdout)["stages"]
    assert len([s for s in stages if ".claim" not in s]) == len(used)
    assert all(entry["state"] == "whole" for entry in used)
    with open_study(home) as database:
        assert outcome(database) == undisturbed
        trained = sum(use.trained for use in happened(database, StageUsed))
        states = [end.state for end in happened(database, TrialEnded)]
        trials = read_sweep(database, "s").trials
    assert trained == len(used)
    # The best and the last checkpoint are left of the best trials; nothing lies in the home.
    for trial in trials:
        kept = {Path(saved.folder).name for saved in trial.checkpoints}
        assert set(remote.children(f"runs/checkpoints/s/{trial.number:05d}")) == kept
        assert trial.checkpoint_of(trial.improvements[-1].epoch) is not None
    assert "COMPLETE" in states
    assert not (home / "storage").exists()
    assert not [name for name in remote.children("runs") if name.startswith("tune-")]
    logged = run("logs", "s", "--trial", "0").stderr
    assert logged.count("hello from a worker") >= 4
    best = json.loads(run("show", "s", "--json").stdout)["trials"][0]
    told = run("evaluate", f"s/{best['number']}", *store, "--out", "e")
    assert told.returncode == 0, told.stderr
    assert "metrics.json" in told.stderr + told.stdout


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"POSETUNE_STORAGE": "s3://no-such-bucket-here/x"}, "there is no such bucket"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "does not answer as it should"),
        ({"POSETUNE_STORAGE": "gs://bucket/x"}, "POSETUNE_STORAGE: gs://: is not supported"),
    ],
)
def test_storage_that_is_not_there_is_one_clear_line(
    toy_sweep: Write, bucket: str, tmp_path: Path, changed: dict[str, str], said: str
) -> None:
    environment = {"POSETUNE_STORAGE": bucket, **changed}
    words = ("sweep", toy_sweep(), "--name", "s")
    refused = run_here(*words, folder=tmp_path, environment=environment)
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.startswith("error: ")
    assert said in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
