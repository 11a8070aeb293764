"""A trainable that calls MLflow itself is told so, and leaves no database behind."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow import log_metric as imported_by_name

from posetune.api import TrialFailedError
from posetune.trial.worker.foreign_mlflow import mlflow_refused

CALLS: dict[str, Callable[[], Any]] = {
    "log_metric": lambda: mlflow.log_metric("mine", 1.0),
    "log_param": lambda: mlflow.log_param("p", 1),
    "log_text": lambda: mlflow.log_text("text", "file.txt"),
    "set_tag": lambda: mlflow.set_tag("t", "1"),
    "start_run": mlflow.start_run,
    "set_experiment": lambda: mlflow.set_experiment("mine"),
    "MlflowClient.__init__": MlflowClient,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_refused_by_its_name_and_leaves_nothing(folder: Path, name: str) -> None:
    with mlflow_refused(), pytest.raises(TrialFailedError) as raised:
        CALLS[name]()
    assert f"calls MLflow itself (mlflow.{name})" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(folder.iterdir()) == []


def test_a_function_that_was_imported_by_its_name_is_refused(folder: Path) -> None:
    with mlflow_refused(), mlflow_refused(), pytest.raises(TrialFailedError, match="log_metric"):
        imported_by_name("mine", 1.0)
    assert list(folder.iterdir()) == []


def test_mlflow_works_again_behind_the_block(migrated_home: Path) -> None:
    with mlflow_refused(), pytest.raises(TrialFailedError):
        MlflowClient(f"sqlite:///{migrated_home / 'mlflow.db'}")
    assert MlflowClient(f"sqlite:///{migrated_home / 'mlflow.db'}").search_experiments()


_TRAINED = """
from posetune.trial.worker.foreign_mlflow import mlflow_refused
from posetune.api import TrialFailedError

with mlflow_refused():
    import mlflow
    try:
        mlflow.log_metric("mine", 1.0)
    except TrialFailedError as error:
        print(error)
"""


@pytest.mark.slow
def test_mlflow_that_the_trainable_is_the_first_to_import_is_refused(folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _TRAINED], capture_output=True, text=True, check=False
    )
    assert re.match("the trainable calls MLflow itself", ended.stdout), ended.stderr
    assert list(folder.iterdir()) == []
