"""A sweep with its storage and its store on a real S3 server ends as one with folders does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select
from support.simulated_driver import outcome

from posetune.home import Home
from posetune.storage import open_storage
from posetune.study import schema
from posetune.study.database import Database, open_database

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def run(folder: Path, home: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "POSETUNE_HOME": str(folder / home), "COLUMNS": "160", **more}
    return subprocess.Popen(
        [sys.executable, "-m", "posetune.cli", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(folder: Path, home: str, *arguments: str, **more: str) -> str:
    process = run(folder, home, *arguments, **more)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def study(folder: Path, home: str) -> Database:
    return open_database(Home.resolve(folder / home).database)


def wait_for_reports(folder: Path, home: str, count: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if (folder / home / "study.db").exists():
            database = study(folder, home)
            with database.reading() as connection:
                found = connection.execute(
                    select(func.count()).select_from(schema.report)
                ).scalar_one()
            database.close()
            if found >= count:
                return
        time.sleep(0.1)
    raise AssertionError("no reports")


def test_a_sweep_on_s3_that_is_killed_and_stopped_ends_bit_for_bit_as_one_in_a_folder(
    toy_sweep: Callable[..., Path], toy_store: Path, bucket: str, tmp_path: Path
) -> None:
    file = str(toy_sweep(trials=3, max_epochs=4, cpu=os.cpu_count() or 1, epoch_s=0.4))
    text = Path(file).read_text().replace("fixed: {", "fixed: {say: hello from a worker, ")
    Path(file).write_text(text)
    sweep = ["sweep", file, "--name", "s"]
    finish(tmp_path, "folder", *sweep)

    remote = open_storage(bucket)
    with remote.writing("stores/toy") as folder:
        shutil.copytree(toy_store, folder, dirs_exist_ok=True)
    on_s3 = {"POSETUNE_STORAGE": f"{bucket}/runs"}
    sweep += ["--store", f"{bucket}/stores/toy"]
    first = run(tmp_path, "s3", *sweep, **on_s3)
    wait_for_reports(tmp_path, "s3", 1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    second = run(tmp_path, "s3", *sweep, **on_s3)
    wait_for_reports(tmp_path, "s3", 3)
    os.kill(second.pid, signal.SIGTERM)
    output, _ = second.communicate(timeout=200)
    assert second.returncode == 130, output
    finish(tmp_path, "s3", *sweep, **on_s3)

    assert outcome(study(tmp_path, "s3")) == outcome(study(tmp_path, "folder"))
    stages = remote.children("runs/stages/floor")
    used = json.loads(finish(tmp_path, "s3", "stages", "--json", **on_s3))["stages"]
    assert len([s for s in stages if ".claim" not in s]) == len(used)
    assert all(entry["state"] == "whole" for entry in used)
    counted = study(tmp_path, "s3")
    with counted.reading() as connection:
        trained = connection.execute(select(func.sum(schema.stage_use.c.trained))).scalar_one()
    assert trained == len(used)
    # One checkpoint is left of each complete trial, none of the others; nothing in the home.
    kept = [remote.children(f"runs/checkpoints/s/{n:05d}") for n in range(3)]
    with counted.reading() as connection:
        states = connection.execute(select(schema.told.c.state)).scalars().all()
    assert sum(map(len, kept)) == sum(state == "COMPLETE" for state in states) > 0
    assert not (tmp_path / "s3" / "storage").exists()
    assert not [name for name in remote.children("runs") if name.startswith("tune-")]
    logged = finish(tmp_path, "s3", "logs", "s", "--trial", "0", **on_s3)
    assert logged.count("hello from a worker") >= 4
    best = json.loads(finish(tmp_path, "s3", "show", "s", "--json", **on_s3))["trials"][0]
    model = f"s/{best['number']}"
    told = finish(
        tmp_path, "s3", "evaluate", model, "--store", f"{bucket}/stores/toy", "--out", "e", **on_s3
    )
    assert "metrics.json" in told


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"POSETUNE_STORAGE": "s3://no-such-bucket-here/x"}, "there is no such bucket"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "does not answer as it should"),
        ({"POSETUNE_STORAGE": "gs://bucket/x"}, "POSETUNE_STORAGE: gs://: is not supported"),
    ],
)
def test_storage_that_is_not_there_is_one_clear_line(
    toy_sweep: Callable[..., Path], bucket: str, tmp_path: Path, changed: dict[str, str], said: str
) -> None:
    environment = {"POSETUNE_STORAGE": bucket, **changed}
    process = run(tmp_path, "home", "sweep", str(toy_sweep()), "--name", "s", **environment)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 2, output
    assert output.startswith("error: ")
    assert said in output
    assert len(output.strip().splitlines()) == 1
