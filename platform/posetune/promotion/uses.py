"""Says which versions and aliases in the registry were made of a sweep's trials."""

from __future__ import annotations

from collections.abc import Collection

from posetune.home import Home
from posetune.promotion.models import find_number
from posetune.tracking.server.connection import connect, mlflow_faults_explained, patiently

__all__ = ["aliases_of", "registered_runs"]


def registered_runs(home: Home) -> set[str]:
    """Return the ids of the runs that registered versions were made of.

    Raises:
        BadInputError: MLflow cannot be reached.
    """
    found: set[str] = set()
    with mlflow_faults_explained(home):
        client = connect(home)
        token = None
        while True:
            page = patiently(lambda t=token: client.search_model_versions(page_token=t))  # type: ignore[misc]
            found.update(version.run_id for version in page if version.run_id)
            token = page.token
            if not token:
                return found


def aliases_of(home: Home, run_ids: Collection[str]) -> list[str]:
    """Return the aliases of versions that were made of some runs, in words, by their names.

    Args:
        home: where the registry is.
        run_ids: ids of the runs of trials.

    Raises:
        BadInputError: MLflow cannot be reached.
    """
    found = []
    with mlflow_faults_explained(home):
        client = connect(home)
        token = None
        while True:
            page = patiently(lambda t=token: client.search_registered_models(page_token=t))  # type: ignore[misc]
            for model in page:
                for alias, number in sorted(model.aliases.items()):
                    version = find_number(client, model.name, number)
                    if version is not None and version.run_id in run_ids:
                        trial = version.tags.get("posetune.trial", "not known")
                        at = f"models:/{model.name}@{alias}"
                        found.append(f"{at} is version {number}, of trial {trial}")
            token = page.token
            if not token:
                return found
