from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient
from sqlalchemy import select

from posetune.home import Home
from posetune.study.forecasting.forecast import Forecaster, forecast_sweep
from posetune.study.reading import read_sweep
from posetune.study.tables import schema
from posetune.testing.toy import ToyConfig
from posetune.tracking.projection import Projection, ship
from posetune.tracking.server import connection

Shown = dict[str, Any]
Read = Callable[[Home], dict[str, Shown]]


@pytest.mark.slow
def test_states_are_those_of_the_table(scene: Any, shown: Read) -> None:
    scene.run_all()
    ship(scene.database, "first", scene.home)
    runs = shown(scene.home)

    states = {n: (r["status"], r["tags"]["posetune.state"]) for n, r in runs.items()}
    assert states == {
        "first": ("FINISHED", "complete"),
        "first-000": ("FINISHED", "complete"),
        "first-001": ("FINISHED", "pruned"),
        "first-002": ("FAILED", "failed"),
        "first-003": ("FINISHED", "complete"),
    }
    assert runs["first-002"]["tags"]["posetune.reason"] == "diverged: x = 9"
    assert runs["first-001"]["tags"]["posetune.epochs"] == "1"


@pytest.mark.slow
def test_every_trial_is_one_child_with_params_curve_and_tags(scene: Any, shown: Read) -> None:
    scene.run_all()
    report = ship(scene.database, "first", scene.home)
    runs = shown(scene.home)
    child = runs["first-003"]

    assert report.created == 5
    assert report.run_id == runs["first"]["id"]
    assert child["tags"]["mlflow.parentRunId"] == runs["first"]["id"]
    assert child["params"]["x"] == str(read_sweep(scene.database, "first").trials[3].params["x"])
    assert set(child["params"]) == set(ToyConfig.model_fields)
    assert [(s, v) for s, v, _ in child["history"]["val/error_mm"]] == [
        (1, 6.0),
        (2, 5.0),
        (3, 4.0),
        (4, 3.0),
    ]
    assert child["tags"]["posetune.stage.floor"] == "1" * 64
    assert child["tags"]["posetune.attempts"] == "1"
    assert child["tags"]["posetune.checkpoint.uri"].startswith("file:///")
    assert child["data"] == ["d" * 36]


@pytest.mark.slow
def test_the_sweeps_run_tells_the_result_beside_the_baselines(scene: Any, shown: Read) -> None:
    scene.run_all()
    ship(scene.database, "first", scene.home)
    parent = shown(scene.home)["first"]

    assert parent["files"] == ["provenance.json", "sweep.yaml"]
    best = [8.0, 7.0, 6.0, 5.0, 4.5, 4.0, 3.0]
    assert [v for _, v, _ in parent["history"]["best/val/error_mm"]] == best
    assert [s for s, _, _ in parent["history"]["best/val/error_mm"]] == [1, 2, 3, 4, 6, 9, 10]
    assert [v for _, v, _ in parent["history"]["best/epoch"]] == [1, 2, 3, 4, 1, 3, 4]
    assert [v for _, v, _ in parent["history"]["baseline/mean_shape_mm"]] == [9.0]
    assert parent["tags"]["mlflow.source.git.commit"] == "abc123"
    assert parent["tags"]["posetune.dirty"] == "True"
    note = parent["tags"]["mlflow.note.content"]
    assert "**best: trial 3 after epoch 4** | **3**" in note
    assert "| baseline: mean_shape | 9 |" in note
    assert "posetune sweep sweep.yaml --name first --store" in note
    note = shown(scene.home)["first-003"]["tags"]["mlflow.note.content"]
    assert "**trial 3, after 4 of 4 epochs** | **3**" in note
    assert "| baseline: mean_shape | 9 |" in note
    assert "posetune reproduce first/3 --home" in note


@pytest.mark.slow
def test_complete_trials_have_model_and_figures_but_never_the_state(
    scene: Any, shown: Read
) -> None:
    scene.run_all()
    ship(scene.database, "first", scene.home)
    runs = shown(scene.home)

    assert runs["first-000"]["files"] == [
        "figures/learning_curve.png",
        "figures/toy.png",
        "model/model.safetensors",
    ]
    assert runs["first-001"]["files"] == []


@pytest.mark.slow
def test_the_embedded_store_keeps_artifacts_under_the_home(scene: Any) -> None:
    scene.run_all()
    report = ship(scene.database, "first", scene.home)

    experiment = MlflowClient(scene.home.tracking).get_experiment(report.experiment_id)
    assert experiment.artifact_location == scene.home.artifacts.as_uri()
    assert experiment.name == "posetune/posetune.testing.toy:Toy"


@pytest.mark.slow
def test_shipping_twice_changes_nothing(scene: Any, shown: Read) -> None:
    scene.run_all()
    ship(scene.database, "first", scene.home)
    before = shown(scene.home)
    again = ship(scene.database, "first", scene.home)

    assert shown(scene.home) == before
    assert (again.created, again.values, again.uploads) == (0, 0, 0)


@pytest.mark.slow
def test_shipping_step_by_step_equals_shipping_at_the_end(
    scene: Any, contents: Read, other_home: Callable[[str], Home]
) -> None:
    run = scene.open()
    run.baselines({"mean_shape": 9.0})
    live = Projection(scene.database, "first", scene.home)
    for value in (5.0, 8.0, 3.0, 4.0):
        number, attempt = scene.begin(run)
        live.advance()
        while scene.epoch(run, number, attempt, value=value).value == "continue":
            live.advance()
        run.finish(number)
    run.close("finished")
    live.advance()
    end = other_home("end")
    ship(scene.database, "first", end)

    assert contents(scene.home) == contents(end)


@pytest.mark.slow
def test_the_run_of_a_running_sweep_says_what_the_whole_will_take(scene: Any, shown: Read) -> None:
    scene.trials = 30
    run = scene.open()
    live = Projection(scene.database, "first", scene.home, Forecaster(first_s=0.0))
    number, attempt = scene.begin(run)
    live.advance()
    assert "posetune.forecast" not in shown(scene.home)["first"]["tags"]  # nothing is known
    live = Projection(scene.database, "first", scene.home, Forecaster(first_s=0.0))
    scene.epoch(run, number, attempt, value=5.0)
    live.advance()
    said = shown(scene.home)["first"]["tags"]["posetune.forecast"]
    expected = forecast_sweep(read_sweep(scene.database, "first"))
    assert expected is not None
    low, _, high = expected.epochs
    assert 30 < low < high < 120
    assert said.startswith(
        f"the whole with 80 % (reports so far: 1): {low:.0f} to {high:.0f} epochs, "
    )
    assert said.endswith(" hours by the clock; ended by trials 100%")

    scene.epoch(run, number, attempt, value=4.0)
    live.advance()  # too soon for another
    ship(scene.database, "first", scene.home)  # and who does not drive it forecasts nothing
    assert shown(scene.home)["first"]["tags"]["posetune.forecast"] == said
    run.close("stopped by SIGINT")
    ship(scene.database, "first", scene.home)
    assert shown(scene.home)["first"]["tags"]["posetune.forecast"] == ""


@pytest.mark.slow
def test_the_study_knows_the_runs_without_credentials(
    scene: Any, shown: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.run_all()
    ship(scene.database, "first", scene.home)
    runs = shown(scene.home)

    trials = read_sweep(scene.database, "first").trials
    assert [t.mlflow_run_id for t in trials] == [runs[f"first-00{i}"]["id"] for i in range(4)]
    with scene.database.reading() as connected:
        rows = connected.execute(select(schema.tracked.c.tracking)).scalars().all()
    assert len(rows) == 5
    assert connection.public_address("http://me:secret@host:5000") == "http://host:5000"


@pytest.mark.slow
def test_a_store_that_was_wiped_is_filled_again(
    scene: Any, shown: Read, other_home: Callable[[str], Home]
) -> None:
    scene.run_all()
    ship(scene.database, "first", scene.home)
    client = MlflowClient(scene.home.tracking)
    for run in shown(scene.home).values():
        client.delete_run(run["id"])
    ship(scene.database, "first", scene.home)

    runs = shown(scene.home)
    assert len(runs) == 5
    trials = read_sweep(scene.database, "first").trials
    assert trials[2].mlflow_run_id == runs["first-002"]["id"]


def test_values_that_are_no_numbers_are_left_out(scene: Any, shown: Read) -> None:
    run = scene.open()
    number, attempt = scene.begin(run)
    scene.epoch(run, number, attempt, value=math.nan)
    scene.epoch(run, number, attempt, value=2.0)
    ship(scene.database, "first", scene.home)
    ship(scene.database, "first", scene.home)

    history = shown(scene.home)["first-000"]["history"]
    assert [step for step, *_ in history["val/error_mm"]] == [2]
    assert [step for step, *_ in history["time/epoch_s"]] == [1, 2]


def test_a_sweep_of_which_every_trial_failed_has_failed(scene: Any, shown: Read) -> None:
    run = scene.open()
    for _ in range(4):
        number, _ = scene.begin(run)
        run.fail(number, "diverged")
    run.close("finished")
    ship(scene.database, "first", scene.home)

    assert {r["status"] for r in shown(scene.home).values()} == {"FAILED"}


@pytest.mark.slow
def test_what_a_sweep_imports_before_it_is_under_way_is_not_mlflow() -> None:
    script = "import sys, posetune.tracking.tracker; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
