"""A backup holds MLflow, too, on whatever database it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from support.worlds import Kind, World, go_on

from posetune.study.tables.whole_study import STUDY_TABLES
from posetune.tracking.projection import ship

Worlds = Callable[..., World]


def move(here: World, there: World, place: str) -> None:
    """Back one home up and restore it into another, twice, as after a command that was killed."""
    made = here.command("backup", "--to", place)
    restored = there.command("restore", place)
    again = there.command("restore", place)
    assert made.returncode == 0, made.stderr
    assert (restored.returncode, again.returncode) == (0, 0), restored.stderr + again.stderr


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sqlite and folders"], indirect=True)
def test_study_and_mlflow_may_share_one_postgres_database(
    worlds: Worlds, place: str, postgres_database: str, other_postgres_database: str, kind: Kind
) -> None:
    kind.addresses = [other_postgres_database, postgres_database]
    here = worlds("here", tracking=postgres_database)
    there = worlds("there", tracking=other_postgres_database)
    here.sweep("first", epochs=5)
    ship(here.database, "first", here.home)

    move(here, there, place)

    first = {json.loads(line)[0] for line in (Path(place) / "rows" / "study.jsonl").open()}
    second = {json.loads(line)[0] for line in (Path(place) / "rows" / "mlflow.jsonl").open()}
    assert "event" in first <= STUDY_TABLES
    assert "runs" in second - STUDY_TABLES
    assert not first & second
    assert shown_in(there) == shown_in(here)
    assert there.everything_of("first")["rows"] == here.everything_of("first")["rows"]


def shown_in(world: World) -> dict[str, Any]:
    """What MLflow has of all runs, by what they show."""
    client = MlflowClient(world.home.tracking)
    found = {}
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            steps = {
                name: [m.step for m in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            }
            found[run.info.run_name] = (run.info.run_id, run.info.status, run.data.params, steps)
    return found


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sqlite and folders"], indirect=True)
def test_mlflow_is_restored_with_its_files_from_sqlite_to_postgres_and_goes_on(
    worlds: Worlds, place: str, postgres_database: str, mlflow_template: Path
) -> None:
    here, there = worlds("here"), worlds("there", tracking=postgres_database)
    shutil.copy(mlflow_template, here.home.folder / "mlflow.db")
    here.sweep("first", epochs=5)
    ship(here.database, "first", here.home)

    move(here, there, place)

    assert shown_in(there) == shown_in(here)
    assert there.view("first").id == here.view("first").id
    files = {f.relative_to(here.home.artifacts) for f in here.home.artifacts.rglob("*")}
    assert files
    assert files == {f.relative_to(there.home.artifacts) for f in there.home.artifacts.rglob("*")}
    for run in MlflowClient(postgres_database).search_runs(["1"]):
        assert run.info.artifact_uri.startswith(there.home.artifacts.as_uri())

    go_on(there, "first")
    ship(there.database, "first", there.home)
    kept = shown_in(there)
    for name, (run_id, *_) in shown_in(here).items():
        assert kept[name][0] == run_id, "the run goes on, no other is made"
    assert all(
        steps == sorted(set(steps)) for _, _, _, by in kept.values() for steps in by.values()
    )
