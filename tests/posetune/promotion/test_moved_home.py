"""A home that was moved with all it holds is whole where it lies now."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support.commands import command_environment
from support.mlflow_scene import Scene, make_home

from posetune.promotion.decision import promote
from posetune.promotion.models import fetch_uri
from posetune.promotion.request import Request
from posetune.study.tables.database import open_database
from posetune.testing.toy import Toy
from posetune.tracking.projection import ship


@pytest.mark.long
@pytest.mark.slow
def test_a_moved_home_promotes_loads_reports_and_tracks_where_it_lies_now(
    tmp_path: Path, mlflow_template: Path
) -> None:
    before, after = tmp_path / "before", tmp_path / "after" / "home"
    before.mkdir()
    shutil.copy(mlflow_template, before / "mlflow.db")
    home = make_home(before)
    scene = Scene(home, open_database(home.database))
    scene.run_all().lease.release()
    ship(scene.database, "first", home)
    promote(scene.database, home, Request("first", "toy"), trainable=Toy)
    scene.database.close()

    after.parent.mkdir()
    before.rename(after)
    page = tmp_path / "first.html"
    run_apart(after, "report", "first", "--no-evaluate", "--out", page)
    run_apart(after, "promote", "first", "--trial", 0, "--model", "toy")
    home = make_home(after)
    (after / "copy").mkdir()
    _, weights = fetch_uri(home, "models:/toy/1", after / "copy")

    assert not before.exists()
    assert any(weights.iterdir())
    (logged,) = (after / "mlartifacts").rglob("report.html")
    assert logged.read_bytes() == page.read_bytes()
    client = MlflowClient(home.tracking)
    versions = client.search_model_versions("name = 'toy'")
    assert {int(version.version) for version in versions} == {1, 2}
    for version in versions:
        assert version.source.startswith(home.artifacts.as_uri())
        run = client.get_run(version.run_id)
        assert run.info.artifact_uri.startswith(home.artifacts.as_uri())


def run_apart(home: Path, *arguments: object) -> None:
    """Run a command in a process of its own: MLflow remembers where a run's files were."""
    command = [sys.executable, "-m", "posetune.cli", *map(str, arguments), "--home", str(home)]
    environment = command_environment(home.parent)
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
