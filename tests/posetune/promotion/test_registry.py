from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from posetune.api import BadInputError, StoreSummary
from posetune.home import Home
from posetune.promotion.decision import promote
from posetune.promotion.request import Promotion, Request
from posetune.testing.toy import Toy


def promoted(scene: Any, model: str = "selfpose", alias: str = "candidate") -> Promotion:
    request = Request("first", model, alias)
    return promote(scene.database, scene.home, request, trainable=Toy)


@pytest.fixture
def finished(scene: Any) -> Any:
    scene.run_all()
    return scene


@pytest.mark.slow
def test_the_best_complete_trial_becomes_a_version_with_lineage(finished: Any) -> None:
    promotion = promoted(finished)
    client = MlflowClient(finished.home.tracking)
    version = client.get_model_version_by_alias("selfpose", "candidate")

    assert (promotion.trial, promotion.value, promotion.version) == (3, 3.0, 1)
    assert promotion.uri == "models:/selfpose@candidate"
    assert version.run_id == promotion.run_id
    assert version.tags["posetune.gate"] == "ungated"
    assert version.tags["posetune.sweep"] == "first"
    assert version.tags["posetune.trial"] == "3"
    assert version.tags["posetune.store_digest"] == promotion.data_digest == "d" * 64
    logged = client.get_logged_model(version.tags["posetune.model_id"])
    assert (str(logged.status), logged.source_run_id) == ("READY", promotion.run_id)
    run = client.get_run(promotion.run_id)
    assert run.info.status == "FINISHED"
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "selfpose", "version": 1}]
    assert [output.model_id for output in run.outputs.model_outputs] == [logged.model_id]


@pytest.mark.slow
def test_what_the_import_of_the_data_left_out_stands_on_the_version(
    finished: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def promoted_tag(model: str) -> str:
        promoted(finished, model)
        client = MlflowClient(finished.home.tracking)
        tags = client.get_model_version_by_alias(model, "candidate").tags
        return str(tags["posetune.data_quality"])

    assert promoted_tag("absent").startswith("not known: ")
    quality = {"check: size": "1500 to 1900 mm", "left out": "2 items: 2: upside down"}
    summary = StoreSummary("d" * 64, {"val": 1}, {}, quality=quality)
    monkeypatch.setattr(Toy, "describe_store", lambda store: summary)

    assert promoted_tag("checked") == (
        "check: size: 1500 to 1900 mm\nleft out: 2 items: 2: upside down"
    )


@pytest.mark.slow
def test_the_model_has_its_trials_metrics_on_its_data_and_the_run_keeps_its_own(
    finished: Any,
) -> None:
    from posetune.tracking.projection import ship

    ship(finished.database, "first", finished.home)
    client = MlflowClient(finished.home.tracking)
    promotion = promoted(finished)
    version = client.get_model_version_by_alias("selfpose", "candidate")
    logged = client.get_logged_model(version.tags["posetune.model_id"])

    found = {metric.key: metric for metric in logged.metrics}
    assert found["val/error_mm"].value == promotion.value
    assert found["val/error_mm"].dataset_digest == "d" * 36
    assert found["train/step"].value == 40.0
    history = client.get_metric_history(promotion.run_id, "val/error_mm")
    assert [metric.step for metric in history] == [1, 2, 3, 4]
    folder = Path(version.source.removeprefix("file://"))
    assert (folder / "input_example.json").exists()


@pytest.mark.slow
def test_the_same_trial_again_keeps_its_version(finished: Any) -> None:
    first = promoted(finished)
    again = promoted(finished)
    client = MlflowClient(finished.home.tracking)

    assert again == first
    assert len(client.search_model_versions("name = 'selfpose'")) == 1


@pytest.mark.slow
def test_a_promotion_cut_before_its_version_takes_the_same_logged_model(
    finished: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", None)
        with pytest.raises(TypeError):
            promoted(finished)
    promoted(finished)
    client = MlflowClient(finished.home.tracking)
    experiments = [e.experiment_id for e in client.search_experiments()]

    assert len(client.search_logged_models(experiments)) == 1


@pytest.mark.slow
def test_the_alias_moves_to_a_better_trial(scene: Any) -> None:
    run = scene.open()
    scene.run_trial(run, 5.0)
    first = promoted(scene)
    scene.run_trial(run, 3.0)
    second = promoted(scene)

    assert (first.trial, first.version) == (0, 1)
    assert (second.trial, second.version) == (1, 2)
    client = MlflowClient(scene.home.tracking)
    assert client.get_model_version_by_alias("selfpose", "candidate").version == 2


@pytest.mark.slow
def test_the_saved_model_holds_no_pickle_and_its_code(finished: Any) -> None:
    promotion = promoted(finished)
    client = MlflowClient(finished.home.tracking)
    version = client.get_model_version("selfpose", str(promotion.version))
    folder = Path(version.source.removeprefix("file://"))
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}

    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pyc"))]
    assert "code/posetune/testing/toy.py" in files
    assert [n for n in files if n.startswith("artifacts/")] == ["artifacts/model/model.safetensors"]
    requirements = (folder / "requirements.txt").read_text().split()
    assert any(line.startswith("torch==") for line in requirements)
    assert not any(line.startswith("ray") or "+" in line for line in requirements)


_LOAD = """
import json, sys
# Neither an installed posetune nor the repository: only what was saved with the model.
sys.path = [p for p in sys.path if not p.rstrip("/").endswith(("/platform", "/trainables"))]
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/selfpose@candidate")
poses = model.predict(np.zeros((2, 8, 8, 3), np.uint8))
import posetune
refused = ""
try:
    model.predict(np.zeros((2, 9, 9, 3), np.uint8))
except Exception as error:
    refused = type(error).__name__
print(json.dumps([poses.tolist(), str(poses.dtype), posetune.__file__, refused]))
"""


@pytest.mark.long
@pytest.mark.slow
def test_it_loads_in_a_fresh_process_without_an_install(finished: Any, tmp_path: Path) -> None:
    promoted(finished)
    shutil.rmtree(finished.home.storage.root)
    cwd = tmp_path / "elsewhere"
    cwd.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    loaded = subprocess.run(
        [sys.executable, "-c", _LOAD, finished.home.tracking],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment,
    )
    assert (loaded.returncode, loaded.stderr) == (0, "")
    poses, dtype, source, refused = json.loads(loaded.stdout)

    assert poses == [[[0, 0, 0], [-1, 0, 0], [1, 0, 0]]] * 2
    assert dtype == "float32"
    assert str(finished.home.artifacts) in source
    assert refused == "MlflowException"


@pytest.mark.slow
def test_a_damaged_model_is_refused(finished: Any) -> None:
    (weights,) = finished.home.storage.root.rglob("00003/*/model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")

    with pytest.raises(BadInputError, match=r"trial 3: its checkpoint .* is damaged: digest"):
        promoted(finished)


def test_a_missing_model_is_refused(finished: Any) -> None:
    shutil.rmtree(finished.home.storage.root)
    with pytest.raises(BadInputError, match="is not there; give the storage"):
        promoted(finished)


def test_a_sweep_without_a_value_is_refused(scene: Any) -> None:
    run = scene.open()
    scene.begin(run)
    with pytest.raises(BadInputError, match="no trial has reported a value to promote"):
        promoted(scene)


@pytest.mark.parametrize("alias", ["latest", "Latest", "v1", "V12", "", "a b", "a/b"])
def test_a_reserved_or_impossible_alias_is_refused(scene: Any, alias: str) -> None:
    with pytest.raises(BadInputError, match="--alias"):
        promoted(scene, alias=alias)


@pytest.mark.parametrize("model", ["", "a/b", "a:b", "..", "a b", "it's"])
def test_an_impossible_model_name_is_refused(scene: Any, model: str) -> None:
    with pytest.raises(BadInputError, match="--model"):
        promoted(scene, model=model)


def test_an_unknown_sweep_is_refused(scene: Any) -> None:
    with pytest.raises(BadInputError, match="no sweep 'first'"):
        promoted(scene)


def test_mlflow_away_is_one_line(finished: Any) -> None:
    away: Home = finished.home.model_copy(update={"tracking": "http://127.0.0.1:9"})
    with pytest.raises(BadInputError, match=r"^MLflow at http://127\.0\.0\.1:9: [^\n]*$"):
        promote(finished.database, away, Request("first", "selfpose"), trainable=Toy)
