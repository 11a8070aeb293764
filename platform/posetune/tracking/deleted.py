"""Says on the runs of a sweep that the sweep was deleted from its study; the runs stay."""

from __future__ import annotations

from collections.abc import Collection

from mlflow.exceptions import MlflowException

from posetune.home import Home
from posetune.tracking.server.connection import connect, mlflow_faults_explained, patiently

__all__ = ["DELETED_TAG", "mark_deleted"]

DELETED_TAG = "posetune.deleted"
"""Tag that says who deleted the sweep of a run, and when."""


def mark_deleted(home: Home, run_ids: Collection[str], text: str) -> int:
    """Tag the runs of a sweep, and return how many there are; a second call changes nothing.

    Args:
        home: where tracking is.
        run_ids: ids of the runs; one that is not there, or deleted in MLflow, is passed over.
        text: the tag's value.

    Raises:
        BadInputError: MLflow cannot be reached.
    """
    marked = 0
    with mlflow_faults_explained(home):
        client = connect(home)
        for run_id in run_ids:
            try:
                patiently(lambda r=run_id: client.set_tag(r, DELETED_TAG, text))  # type: ignore[misc]
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
            else:
                marked += 1
    return marked
