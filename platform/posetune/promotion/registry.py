"""Makes a version of a trial in the model registry.

The trial is saved as an MLflow model that loads anywhere (code and safetensors, no pickle). Each
step may be repeated, because the server may stumble and a promotion that was broken off is taken
up again.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric
from mlflow.entities.model_registry import RegisteredModel
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from posetune.api import BadInputError, Trainable
from posetune.promotion.judging.validation import Measured
from posetune.promotion.models import FILES_DIGEST, Version, to_version
from posetune.storage.digest import digest_folder
from posetune.study.view import SweepView, TrialView
from posetune.tracking.naming import tag_value
from posetune.tracking.server.connection import make_once, patiently
from posetune.trial.exported import ExportedModel

__all__ = ["Candidate", "check_names", "register"]

_CODE = Path(__file__).with_name("model_code.py")
_NOT_NEEDED = {
    "nvidia-ml-py",
    "optuna",
    "plotly",
    "prometheus-client",
    "psutil",
    "psycopg",
    "ray",
    "rich",
    "sqlalchemy",
    "typer",
}
"""Direct dependencies that a loaded model does not import."""


@dataclass(frozen=True)
class Candidate:
    """Holds the trial that is to be promoted and where it comes from."""

    view: SweepView
    """The sweep."""
    trial: TrialView
    """The trial."""
    model: ExportedModel
    """Its exported model; the files of its checkpoint were checked against their digest."""
    measured: Measured
    """What the model came to on validation."""
    not_measured: str
    """Why it was not measured on the whole validation split; empty if it was."""
    experiment_id: str
    """Id of the MLflow experiment that shows the sweep."""
    run_id: str
    """Id of the trial's run."""
    data_quality: str = "not known"
    """What the import of the sweep's data left out and what its checks measured, in words."""
    all_measured: Sequence[Measured] = ()
    """All epochs that were measured to choose this one."""

    @property
    def checkpoint_digest(self) -> str:
        """Digest of the checkpoint that the exported model belongs to."""
        return self.model.digest

    @property
    def lineage(self) -> dict[str, str]:
        """Tags that say which sweep, trial, data and files the version comes from."""
        return {
            "posetune.sweep": self.view.name,
            "posetune.trial": str(self.trial.number),
            "posetune.run_id": self.run_id,
            "posetune.store_digest": self.view.store_digest,
            "posetune.data_quality": tag_value(self.data_quality),
            "posetune.epoch": str(self.model.epoch),
            "posetune.checkpoint_digest": self.checkpoint_digest,
            "posetune.model_digest": digest_folder(self.model.folder),
            "posetune.objective": self.view.spec.objective.metric,
            "posetune.value": repr(self.measured.value),
            "posetune.value_on_whole_validation": self._whole_value,
            "posetune.gate": "ungated",
        }

    @property
    def description(self) -> str:
        """A sentence about the trial, for the version's page."""
        then, number = self.measured.value, self.trial.number
        value = "not a number" if then is None else f"{then:.6g}"
        whole = self.measured.whole_value
        whole_value = self._whole_value if whole is None else f"{whole:.6g}"
        return (
            f"Trial {number} of sweep {self.view.name} after epoch {self.model.epoch}: "
            f"{self.view.spec.objective.metric} = {value} on the frames of validation that the "
            f"sweep looked at; on the whole validation split: {whole_value}."
        )

    @property
    def _whole_value(self) -> str:
        value = self.measured.whole_value
        if value is not None:
            return repr(value)
        return tag_value(self.not_measured or "not known: evaluation gives no finite value of it")


def register(
    client: MlflowClient, model: str, candidate: Candidate, *, trainable: type[Trainable]
) -> Version:
    """Return the version of a candidate, which is made if there is none yet.

    The same epoch of a trial keeps its version; what it came to on the whole validation split is
    written anew, if it is known now.

    Args:
        client: of the tracking store.
        model: name of the registered model, which is made if need be.
        candidate: the trial.
        trainable: the class that the sweep file names.

    Raises:
        BadInputError: the source of the trainable's package cannot be saved with the model.
    """
    found = _find_version(client, model, candidate)
    if found is None:
        logged = _log_model(client, model, candidate, trainable)
        _log_metrics(client, candidate, logged)
        found = _make_version(client, model, candidate, logged)
    elif candidate.measured.whole_value is not None:
        number, key = str(found.number), "posetune.value_on_whole_validation"
        value = candidate.lineage[key]
        patiently(lambda: client.set_model_version_tag(model, number, key, value))
    return found


def check_names(model: str, alias: str) -> None:
    """Refuse a text that cannot be the name of a model or of an alias.

    Raises:
        BadInputError: MLflow does not take one of the names, or the model's could leave its folder.
    """
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


def _find_version(client: MlflowClient, model: str, candidate: Candidate) -> Version | None:
    """Return the version that was made of this epoch before; None if there is none."""
    for found in patiently(lambda: client.search_model_versions(f"name = '{model}'")):
        same = found.tags.get("posetune.checkpoint_digest") == candidate.checkpoint_digest
        if same and found.run_id == candidate.run_id:
            return to_version(found)
    return None


def _make_version(
    client: MlflowClient, model: str, candidate: Candidate, logged: LoggedModel
) -> Version:
    def find_model() -> RegisteredModel | None:
        found = client.search_registered_models(f"name = '{model}'")
        return found[0] if found else None

    patiently(find_model) or make_once(lambda: client.create_registered_model(model), find_model)
    digest = {key: value for key, value in logged.tags.items() if key == FILES_DIGEST}

    def make() -> Version:
        version = client.create_model_version(
            model,
            # The address `models:/<id>` would be shorter, but MLflow looks it up in the process's
            # default tracking store, which may be another one.
            source=logged.artifact_location,
            run_id=candidate.run_id,
            model_id=logged.model_id,
            tags={**candidate.lineage, **digest, "posetune.model_id": logged.model_id},
            description=candidate.description,
        )
        return to_version(version)

    version = make_once(make, lambda: _find_version(client, model, candidate))
    # A server writes this link by itself. Without a server nobody does, and without the link the
    # model's page does not show the version.
    link = json.dumps([{"name": model, "version": version.number}])
    tags = {"mlflow.modelVersions": link}
    patiently(lambda: client.set_logged_model_tags(logged.model_id, tags))
    return version


def _log_model(
    client: MlflowClient, model: str, candidate: Candidate, trainable: type[Trainable]
) -> LoggedModel:
    """Save the model in MLflow's layout and upload it; an interrupted upload is finished."""

    def find() -> LoggedModel | None:
        query = f"name = '{model}' AND source_run_id = '{candidate.run_id}'"
        for logged in client.search_logged_models([candidate.experiment_id], query):
            same = logged.tags.get("posetune.checkpoint_digest") == candidate.checkpoint_digest
            if same and logged.status != "FAILED":
                return logged
        return None

    def make() -> LoggedModel:
        return client.create_logged_model(
            candidate.experiment_id,
            name=model,
            source_run_id=candidate.run_id,
            tags=candidate.lineage,
            params={name: str(value) for name, value in candidate.trial.params.items()},
        )

    logged = patiently(find) or make_once(make, find)
    model_id = logged.model_id
    if logged.status == "READY":
        return logged
    with tempfile.TemporaryDirectory(prefix="posetune-model-") as scratch:
        folder = Path(scratch) / "model"
        _save(folder, candidate, logged, trainable)
        digest = {FILES_DIGEST: digest_folder(folder)}
        # MLflow reads the model before it sets its tags.
        patiently(lambda: client.set_logged_model_tags(model_id, digest), requests=2)
        _upload(client, model_id, folder)
    patiently(lambda: client.finalize_logged_model(model_id, "READY"))
    _link_to_run(client, candidate, model_id)
    return patiently(lambda: client.get_logged_model(model_id))


def _upload(client: MlflowClient, model_id: str, folder: Path) -> None:
    """Upload a folder file by file, so that a fault of the server repeats one file and not all."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        place = file.parent.relative_to(folder).as_posix()
        into = None if place == "." else place
        patiently(lambda f=file, i=into: client.log_model_artifact(model_id, str(f), i))  # type: ignore[misc]


def _link_to_run(client: MlflowClient, candidate: Candidate, model_id: str) -> None:
    """Add the model to the outputs of its run, unless it is among them."""

    def find() -> bool | None:
        outputs = client.get_run(candidate.run_id).outputs
        models = [] if outputs is None else outputs.model_outputs
        return True if any(output.model_id == model_id for output in models) else None

    def make() -> bool:
        output = LoggedModelOutput(model_id, step=candidate.model.epoch)
        client.log_outputs(candidate.run_id, [output])
        return True

    patiently(find) or make_once(make, find)


def _log_metrics(client: MlflowClient, candidate: Candidate, logged: LoggedModel) -> None:
    """Log the metrics that the trial reported at the epoch, with the data that the run names.

    They have the time and step of the run's own metrics, so that the run's curves get no further
    points.
    """
    run = patiently(lambda: client.get_run(candidate.run_id))
    inputs = run.inputs.dataset_inputs if run.inputs else []
    data = inputs[0].dataset if inputs else None
    metrics = []
    for name in run.data.metrics:
        history = patiently(lambda n=name: client.get_metric_history(candidate.run_id, n))  # type: ignore[misc]
        at_epoch = [metric for metric in history if metric.step == candidate.model.epoch]
        if not at_epoch:  # a number that was not one then
            continue
        last = at_epoch[-1]
        metrics.append(
            Metric(
                name,
                last.value,
                last.timestamp,
                last.step,
                model_id=logged.model_id,
                dataset_name=data.name if data else None,
                dataset_digest=data.digest if data else None,
            )
        )
    patiently(lambda: client.log_batch(candidate.run_id, metrics=metrics))


def _save(
    folder: Path, candidate: Candidate, logged: LoggedModel, trainable: type[Trainable]
) -> None:
    predictor = trainable.load_model(candidate.model.folder)
    side, joints = predictor.image_size, len(predictor.joint_names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow asks for type hints, but the signature says them
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(_CODE),
            model_config={"trainable": candidate.view.spec.trainable},
            artifacts={"model": str(candidate.model.folder)},
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
    # Only now is there a copy of the source, whose digest the loader compares.
    described = Model.load(str(folder))
    described.metadata = {
        **candidate.lineage,
        "posetune.code_digest": digest_folder(folder / "code"),
    }
    described.save(str(folder / "MLmodel"))


def _code_paths(trainable: type[Trainable]) -> list[str]:
    """Return the folders of the top-level packages whose source the model needs.

    Raises:
        BadInputError: a package has no __init__.py.
    """
    tops = dict.fromkeys(["posetune", trainable.__module__.partition(".")[0]])
    paths = []
    for top in tops:
        file = sys.modules[top].__file__
        # A folder without __init__.py has no file of its own; its parent may hold anything.
        if file is None:
            raise BadInputError(
                f"trainable {trainable.__module__}: {top} has no __init__.py, so its source cannot "
                "be saved with the model; make it a package"
            )
        source = Path(file)
        paths.append(str(source.parent if source.name == "__init__.py" else source))
    return paths


def _requirements() -> list[str]:
    """Return the installed versions of the packages that the model imports."""
    requirements = []
    for line in importlib.metadata.requires("posetune") or []:
        name = re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
        if name.lower() not in _NOT_NEEDED and "extra ==" not in line:
            # A local version such as `2.13.0+cpu` is not on the package index.
            version = importlib.metadata.version(name).partition("+")[0]
            requirements.append(f"{name}=={version}")
    return requirements
