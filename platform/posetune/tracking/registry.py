"""Makes a version of a sweep's best trial in the model registry.

`promote` takes the best complete trial on validation, saves it as an MLflow model that loads
anywhere (code and safetensors, no pickle) and points an alias at its version. There is no gate
here: the version says `ungated`.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from posetune.api import BadInputError, Trainable
from posetune.digest import digest_folder
from posetune.home import Home
from posetune.study import journal
from posetune.study.checkpoints import verified_model
from posetune.study.database import Database
from posetune.study.view import SweepView, TrialView, read_sweep
from posetune.tracking.connection import (
    connect,
    exclusive,
    mlflow_faults_explained,
    public_address,
)
from posetune.tracking.content import best_complete
from posetune.tracking.projection import ship

__all__ = ["Promotion", "promote"]

_CODE = Path(__file__).with_name("model_code.py")
_NOT_NEEDED = {"optuna", "plotly", "psycopg", "ray", "rich", "sqlalchemy", "typer"}
"""Direct dependencies that a loaded model does not import."""


@dataclass(frozen=True)
class Promotion:
    """A version in the registry and where it comes from."""

    model: str
    version: int
    alias: str
    sweep: str
    trial: int
    run_id: str
    value: float
    """The objective on validation."""
    data_digest: str
    uri: str
    """For `mlflow.pyfunc.load_model`."""


@dataclass(frozen=True)
class _Candidate:
    """What is promoted."""

    view: SweepView
    trial: TrialView
    folder: Path
    """The exported model, verified."""
    checkpoint_digest: str
    experiment_id: str
    run_id: str

    @property
    def lineage(self) -> dict[str, str]:
        return {
            "posetune.sweep": self.view.name,
            "posetune.trial": str(self.trial.number),
            "posetune.run_id": self.run_id,
            "posetune.store_digest": self.view.store_digest,
            "posetune.checkpoint_digest": self.checkpoint_digest,
            "posetune.model_digest": digest_folder(self.folder),
            "posetune.objective": self.view.spec.objective.metric,
            "posetune.value": repr(self.trial.value),
            "posetune.gate": "ungated",
        }


def promote(
    database: Database,
    home: Home,
    name: str,
    *,
    model: str,
    alias: str = "candidate",
    trainable: type[Trainable],
) -> Promotion:
    """Register the sweep's best complete trial and point an alias at it.

    The same trial again keeps its version.

    Args:
        database: the study.
        home: where storage and tracking are.
        name: the sweep.
        model: the registered model, made if need be.
        alias: moved to the version.
        trainable: the class that the sweep file names.

    Raises:
        BadInputError: no such sweep, no complete trial, its model is missing or damaged, a name
            that cannot be one, or MLflow cannot be reached.
    """
    _check_names(model, alias)
    view = read_sweep(database, name)
    trial, folder, digest = _verified_best(view, home)
    report = ship(database, name, home)
    with mlflow_faults_explained(home), exclusive(home.folder, f"registry-{model}"):
        client = connect(home)
        with database.reading() as connection:
            runs = journal.read_tracked(connection, view.id, public_address(home.tracking))
        run_id = runs[trial.number]
        candidate = _Candidate(view, trial, folder, digest, report.experiment_id, run_id)
        version = _find_version(client, model, candidate)
        if version is None:
            version = _register(client, model, candidate, trainable)
        client.set_registered_model_alias(model, alias, str(version))
    return Promotion(
        model=model,
        version=version,
        alias=alias,
        sweep=name,
        trial=trial.number,
        run_id=run_id,
        value=float(trial.value or 0.0),
        data_digest=view.store_digest,
        uri=f"models:/{model}@{alias}",
    )


def _check_names(model: str, alias: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", model) or ".." in model:
        raise BadInputError(
            f"--model {model!r}: a model's name takes 1 to 100 letters, digits, '_', '-' and '.'."
        )
    reserved = alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias)
    if reserved or not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", alias):
        raise BadInputError(
            f"--alias {alias!r}: an alias takes 1 to 100 letters, digits, '_' and '-', and is not "
            "'latest' nor 'v' with a number (MLflow keeps those to itself)."
        )


def _verified_best(view: SweepView, home: Home) -> tuple[TrialView, Path, str]:
    """Return the best complete trial, its exported model and its checkpoint's digest."""
    trial = best_complete(view)
    if trial is None or trial.checkpoint is None:
        raise BadInputError(
            f"sweep {view.name}: has no complete trial to promote ({len(view.trials)} trials, the "
            f"sweep is {view.state}); continue it with the command that started it"
        )
    return trial, *verified_model(home.storage, view, trial)


def _find_version(client: MlflowClient, model: str, candidate: _Candidate) -> int | None:
    """Return the version that was made of this trial before."""
    for version in client.search_model_versions(f"name = '{model}'"):
        same = version.tags.get("posetune.checkpoint_digest") == candidate.checkpoint_digest
        if same and version.run_id == candidate.run_id:
            return int(version.version)
    return None


def _register(
    client: MlflowClient, model: str, candidate: _Candidate, trainable: type[Trainable]
) -> int:
    logged = _find_logged_model(client, model, candidate)
    if logged is None:
        logged = _log_model(client, model, candidate, trainable)
    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    view, trial = candidate.view, candidate.trial
    version = client.create_model_version(
        model,
        # Not `models:/<id>`, which MLflow looks up in the process's default tracking store.
        source=logged.artifact_location,
        run_id=candidate.run_id,
        model_id=logged.model_id,
        tags={**candidate.lineage, "posetune.model_id": logged.model_id},
        description=(
            f"Trial {trial.number} of sweep {view.name}: {view.spec.objective.metric} = "
            f"{trial.value:.6g} on validation. Not gated."
        ),
    )
    # A server writes this link by itself; without one the model's page would not show the version.
    link = json.dumps([{"name": model, "version": int(version.version)}])
    client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": link})
    return int(version.version)


def _find_logged_model(
    client: MlflowClient, model: str, candidate: _Candidate
) -> LoggedModel | None:
    """Return the model of a promotion that was interrupted before its version was made."""
    query = f"name = '{model}' AND source_run_id = '{candidate.run_id}'"
    for logged in client.search_logged_models([candidate.experiment_id], query):
        same = logged.tags.get("posetune.checkpoint_digest") == candidate.checkpoint_digest
        if same and logged.status == "READY":
            return logged
    return None


def _log_model(
    client: MlflowClient, model: str, candidate: _Candidate, trainable: type[Trainable]
) -> LoggedModel:
    """Save the model as MLflow wants it and upload it."""
    logged = client.create_logged_model(
        candidate.experiment_id,
        name=model,
        source_run_id=candidate.run_id,
        tags=candidate.lineage,
        params={name: str(value) for name, value in candidate.trial.params.items()},
    )
    try:
        with tempfile.TemporaryDirectory(prefix="posetune-model-") as scratch:
            folder = Path(scratch) / "model"
            _save(folder, candidate, logged, trainable)
            client.log_model_artifacts(logged.model_id, str(folder))
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    output = LoggedModelOutput(logged.model_id, step=candidate.trial.epochs)
    client.log_outputs(candidate.run_id, [output])
    return client.get_logged_model(logged.model_id)


def _save(
    folder: Path, candidate: _Candidate, logged: LoggedModel, trainable: type[Trainable]
) -> None:
    predictor = trainable.load_model(candidate.folder)
    side, joints = predictor.image_size, len(predictor.joint_names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, of what the signature says already
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(_CODE),
            model_config={"trainable": candidate.view.spec.trainable},
            artifacts={"model": str(candidate.folder)},
            code_paths=_code_paths(trainable),
            pip_requirements=_requirements(),
            signature=ModelSignature(
                inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, side, side, 3))]),
                outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, joints, 3))]),
            ),
            input_example=np.zeros((1, side, side, 3), np.uint8),
            metadata=candidate.lineage,
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                run_id=candidate.run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
            ),
        )


def _code_paths(trainable: type[Trainable]) -> list[str]:
    """Return the top-level packages whose source the model needs."""
    tops = dict.fromkeys(["posetune", trainable.__module__.partition(".")[0]])
    paths = []
    for top in tops:
        source = Path(sys.modules[top].__file__ or "")
        paths.append(str(source.parent if source.name == "__init__.py" else source))
    return paths


def _requirements() -> list[str]:
    """Return the installed versions of the packages that the model imports."""
    requirements = []
    for line in importlib.metadata.requires("posetune") or []:
        name = re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
        if name.lower() not in _NOT_NEEDED and "extra ==" not in line:
            version = importlib.metadata.version(name).partition("+")[0]  # no local version
            requirements.append(f"{name}=={version}")
    return requirements
