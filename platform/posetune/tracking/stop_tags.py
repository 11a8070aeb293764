"""Stops the trials on whose MLflow run somebody has set the tag `posetune.stop = true`.

MLflow does not say who set it, so the request says where it came from. The tag says afterwards what
has become of it, so a trial that is taken up again is not stopped by the same tag.
"""

from __future__ import annotations

from posetune.api import BadInputError
from posetune.study.acts.act import StopTrial
from posetune.study.acts.asking import ask
from posetune.study.tables.database import Database
from posetune.study.view import SweepView
from posetune.tracking.runs import SweepRuns
from posetune.tracking.server.connection import patiently

__all__ = ["STOP_TAG", "take_stops"]

STOP_TAG = "posetune.stop"
"""Tag that somebody sets to `true` in MLflow to stop a trial."""
FROM_MLFLOW = "somebody@mlflow"
"""Who stops a trial by the tag."""


def take_stops(database: Database, view: SweepView, runs: SweepRuns) -> None:
    """Ask for the end of every trial that is tagged so, once.

    Args:
        database: the study.
        view: the sweep.
        runs: its runs in MLflow.
    """
    for number, run_id in runs.tagged(STOP_TAG, "true").items():
        try:
            ask(database, view.name, StopTrial(trial=number), by=FROM_MLFLOW, wait_s=0.0)
            answer = "asked"
        except BadInputError as error:
            answer = f"refused: {error}"
        patiently(lambda r=run_id, a=answer: runs.client.set_tag(r, STOP_TAG, a))  # type: ignore[misc]
