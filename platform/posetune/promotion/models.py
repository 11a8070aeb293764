"""Finds versions in the model registry and fetches their exported weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from posetune.api import BadInputError
from posetune.home import Home
from posetune.storage.digest import digest_folder
from posetune.tracking.connection import connect, explain, mlflow_faults_explained, patiently

__all__ = ["Version", "fetch_model", "fetch_uri", "find_alias", "find_number", "to_version"]

_URI = re.compile(r"models:/(?P<model>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class Version:
    """A version in the registry."""

    model: str
    number: int
    source: str
    """Where its files are."""
    run_id: str
    tags: Mapping[str, str]

    @property
    def uri(self) -> str:
        """Names exactly this version."""
        return f"models:/{self.model}/{self.number}"


def fetch_uri(home: Home, uri: str, folder: Path) -> tuple[Version, Path]:
    """Return the version that `models:/NAME@ALIAS` or `models:/NAME/NUMBER` names, and its model.

    Args:
        home: where tracking is.
        uri: the name.
        folder: an existing folder to copy the model into.

    Raises:
        BadInputError: there is no such version, it is damaged, or MLflow cannot be reached.
    """
    parts = _URI.fullmatch(uri)
    if parts is None:
        raise BadInputError(f"{uri}: write models:/NAME@ALIAS or models:/NAME/NUMBER")
    with mlflow_faults_explained(home):
        client = connect(home)
        if parts["alias"]:
            found = find_alias(client, parts["model"], parts["alias"])
        else:
            found = find_number(client, parts["model"], parts["version"])
        if found is None:
            raise BadInputError(f"{uri}: no such model; {_known(client, parts['model'])}")
        return found, fetch_model(home, found, folder)


def find_alias(client: MlflowClient, model: str, alias: str) -> Version | None:
    """Return the version that an alias points at; None where there is no such alias or model."""
    return _find(lambda: client.get_model_version_by_alias(model, alias))


def find_number(client: MlflowClient, model: str, number: str) -> Version | None:
    """Return a version by its number; None where there is none."""
    return _find(lambda: client.get_model_version(model, number))


def fetch_model(home: Home, version: Version, folder: Path) -> Path:
    """Copy the exported weights of a version below `folder`; return where they are.

    Raises:
        BadInputError: they are missing, or not those that were registered.
    """
    uri = f"{version.source.rstrip('/')}/artifacts/model"
    try:
        copied = patiently(
            lambda: mlflow.artifacts.download_artifacts(
                artifact_uri=uri, dst_path=str(folder), tracking_uri=home.tracking
            )
        )
    except (OSError, MlflowException) as error:
        raise BadInputError(
            f"{version.uri}: its files cannot be read ({explain(error)}); if {version.source} is "
            "gone, restore it from a backup or promote another version"
        ) from error
    found, registered = digest_folder(Path(copied)), version.tags.get("posetune.model_digest")
    if registered not in (None, found):
        raise BadInputError(
            f"{version.uri}: its files are damaged: digest {found[:12]}, registered was "
            f"{registered[:12]}; restore {version.source} from a backup"
        )
    return Path(copied)


def _find(ask: Callable[[], ModelVersion]) -> Version | None:
    def find() -> ModelVersion | None:
        try:
            return ask()
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    found = patiently(find)
    return None if found is None else to_version(found)


def to_version(found: ModelVersion) -> Version:
    """Return what we need to know of MLflow's version."""
    tags = dict(found.tags)
    return Version(found.name, int(found.version), found.source or "", found.run_id or "", tags)


def _known(client: MlflowClient, model: str) -> str:
    names = [m.name for m in patiently(lambda: client.search_registered_models(max_results=10))]
    if model not in names:
        return f"there is {', '.join(names)}" if names else "none is registered yet"
    aliases = patiently(lambda: client.get_registered_model(model)).aliases
    return f"{model} has the aliases {', '.join(aliases) or 'none'}"
