"""Finds versions in the model registry and fetches their exported weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from posetune.api import BadInputError
from posetune.home import Home
from posetune.storage.digest import digest_folder
from posetune.tracking.server.connection import (
    connect,
    explain,
    mlflow_faults_explained,
    patiently,
    store_address,
)

__all__ = [
    "FILES_DIGEST",
    "Version",
    "check_files",
    "fetch_model",
    "fetch_uri",
    "find_alias",
    "find_number",
    "to_version",
]

FILES_DIGEST = "posetune.files_digest"
"""Tag of a version with the digest of all its files: weights, source and MLmodel. Versions that
were registered before it existed have the digest of their weights alone."""
_WEIGHTS_DIGEST = "posetune.model_digest"
_WEIGHTS = "artifacts/model"
"""Where the weights are among a version's files."""

_URI = re.compile(r"models:/(?P<model>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class Version:
    """Describes one version of a model in the registry."""

    model: str
    """Name of the registered model."""
    number: int
    """Number of the version, from 1."""
    source: str
    """Address of the version's files."""
    run_id: str
    """Id of the trial's run."""
    tags: Mapping[str, str]
    """Values of the version's tags, by name."""

    @property
    def uri(self) -> str:
        """The address `models:/NAME/NUMBER`, which always names this version."""
        return f"models:/{self.model}/{self.number}"


def fetch_uri(home: Home, uri: str, folder: Path) -> tuple[Version, Path]:
    """Find a version by its address and copy its exported weights.

    Args:
        home: where tracking is.
        uri: address of the version: `models:/NAME@ALIAS` or `models:/NAME/NUMBER`.
        folder: an existing folder to copy the weights into.

    Returns:
        The version, and the folder with its exported weights.

    Raises:
        BadInputError: there is no such version, its files are damaged, or MLflow cannot be reached.
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
    """Return the version that an alias points at; None if there is no such alias or model."""
    return _find(lambda: client.get_model_version_by_alias(model, alias))


def find_number(client: MlflowClient, model: str, number: str) -> Version | None:
    """Return the version with a number; None if there is no such version or model."""
    return _find(lambda: client.get_model_version(model, number))


def fetch_model(home: Home, version: Version, folder: Path) -> Path:
    """Copy the exported weights of a version below `folder` and return the folder of the copy.

    Raises:
        BadInputError: the weights are missing, or differ from those that were registered.
    """
    copied = _download(home, version, _WEIGHTS, folder)
    _compare(version, digest_folder(copied), version.tags.get(_WEIGHTS_DIGEST))
    return copied


def check_files(home: Home, version: Version) -> None:
    """Refuse a version whose files are not those that were registered: weights, source, MLmodel.

    Raises:
        BadInputError: the files are missing, or differ from those that were registered.
    """
    with TemporaryDirectory(prefix="posetune-version-") as scratch:
        copied = _download(home, version, "", Path(scratch))
        _compare(version, digest_folder(copied / _WEIGHTS), version.tags.get(_WEIGHTS_DIGEST))
        _compare(version, digest_folder(copied), version.tags.get(FILES_DIGEST))


def _download(home: Home, version: Version, part: str, folder: Path) -> Path:
    """Copy a version's files, or a folder of them, below `folder` and return the copy.

    They are copied one by one, so that a fault of the server repeats one request and not all.
    """
    files = get_artifact_repository(version.source, tracking_uri=store_address(home))

    def copy(path: str | None) -> None:
        for entry in patiently(lambda: files.list_artifacts(path)):
            if entry.is_dir:
                copy(entry.path)
            else:
                (folder / entry.path).parent.mkdir(parents=True, exist_ok=True)
                patiently(lambda e=entry: files.download_artifacts(e.path, str(folder)))  # type: ignore[misc, no-untyped-call]

    try:
        copy(part or None)
        if not any(folder.iterdir()):
            raise FileNotFoundError("no file is there")
    except (OSError, MlflowException) as error:
        raise BadInputError(
            f"{version.uri}: its files cannot be read ({explain(error)}); if {version.source} is "
            "gone, restore it from a backup or promote another version"
        ) from error
    return folder / part


def _compare(version: Version, found: str, registered: str | None) -> None:
    if registered not in (None, found):
        raise BadInputError(
            f"{version.uri}: its files are damaged: digest {found[:12]}, registered was "
            f"{registered[:12]}; restore {version.source} from a backup"
        )


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
    """Return the `Version` for MLflow's own object."""
    tags = dict(found.tags)
    return Version(found.name, int(found.version), found.source or "", found.run_id or "", tags)


def _known(client: MlflowClient, model: str) -> str:
    """Return which models there are, or which aliases the model has, for an error's text."""
    names = [m.name for m in patiently(lambda: client.search_registered_models(max_results=10))]
    if model not in names:
        return f"there is {', '.join(names)}" if names else "none is registered yet"
    aliases = patiently(lambda: client.get_registered_model(model)).aliases
    return f"{model} has the aliases {', '.join(aliases) or 'none'}"
