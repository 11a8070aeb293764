"""Gives each sweep a saved view in MLflow's UI, and the links that open it.

MLflow keeps saved views as tags of an experiment, so one can be made without its UI. It does not
keep which rows are unfolded, and it never nests rows that are sorted by a metric; a sweep's view is
sorted by the best value, so that all trials of the sweep stand there at once, best first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from mlflow import MlflowClient

from posetune.api import BadInputError
from posetune.home import Home
from posetune.spec.sweep import Objective
from posetune.study.reading import list_sweeps
from posetune.study.tables.database import Database
from posetune.study.view import SweepView
from posetune.tracking.content import (
    BEST_EPOCH_METRIC,
    best_metric,
    experiment_name,
    sweep_identity,
)
from posetune.tracking.naming import entity_key
from posetune.tracking.server.connection import connect, mlflow_faults_explained

__all__ = ["SweepLinks", "saved_view", "sweep_links"]

_TAG = "mlflow.sharedViewState."
"""How the names of the tags begin in which MLflow keeps saved views."""
_TRAINING = "workflowType=machine_learning"
"""What shows an experiment as model training; MLflow's other mode has none of our columns."""
_MOST_CHARACTERS = 5000
"""Length of an experiment's tag at most."""
MOST_COMPARED = 5
"""Number of trials that the link to a comparison compares."""


@dataclass(frozen=True)
class SweepLinks:
    """Holds the addresses that show one sweep."""

    sweep: str
    """Name of the sweep."""
    trials: str
    """Address of its trials in its saved view."""
    best: str
    """Address of the comparison of its best trials; empty while fewer than two have a value."""


def saved_view(view: SweepView) -> dict[str, str]:
    """Return the tag of the experiment that is a sweep's saved view.

    Its columns are the best value, its epoch, the state, the number of epochs, the searched
    parameters, and the duration, which MLflow always shows. Of very many parameters the first are
    columns, as many as a tag can hold.
    """
    params = [f"params.`{entity_key(name)}`" for name in view.spec.search]
    while len(value := _envelope(view, params)) > _MOST_CHARACTERS:
        params.pop()
    return {_TAG + sweep_identity(view): value}


def _envelope(view: SweepView, params: Sequence[str]) -> str:
    """Return a view as MLflow's own UI saves it."""
    best = f"metrics.`{_best_key(view.spec.objective)}`"
    states = [f"tags.`posetune.{name}`" for name in ("state", "epochs")]
    columns = [best, f"metrics.`{BEST_EPOCH_METRIC}`", *states, *params]
    state = {
        "orderByKey": best,
        "orderByAsc": view.spec.objective.mode == "min",
        "searchFilter": f"tags.`posetune.sweep` = '{view.name}'",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {},
    }
    at = int(view.started * 1000)
    saved = {"name": f"sweep {view.name}", "createdAt": at, "updatedAt": at}
    return json.dumps({**saved, "state": json.dumps(state)})


def sweep_links(database: Database, home: Home, address: str, *, most: int) -> list[SweepLinks]:
    """Return the links of the newest sweeps that MLflow shows, newest first.

    Args:
        database: the study.
        home: where tracking is.
        address: where the UI is served.
        most: number of sweeps.
    """
    links = []
    try:
        with mlflow_faults_explained(home):
            client = connect(home)
            for view in list_sweeps(database)[:most]:
                experiment = client.get_experiment_by_name(experiment_name(view))
                if experiment is not None:
                    _keep(client, str(experiment.experiment_id), experiment.tags, view)
                    links.append(_links(address, str(experiment.experiment_id), view))
    except BadInputError:
        return links  # the UI itself says what is wrong with MLflow
    return links


def _keep(client: MlflowClient, experiment: str, tags: dict[str, str], view: SweepView) -> None:
    for key, value in saved_view(view).items():
        if key not in tags:  # a sweep that was shipped before there were views
            client.set_experiment_tag(experiment, key, value)


def _links(address: str, experiment: str, view: SweepView) -> SweepLinks:
    base = f"{address.rstrip('/')}/#"
    key = urlencode({"viewStateShareKey": sweep_identity(view)})
    runs = [t.mlflow_run_id for t in view.ranked[:MOST_COMPARED] if t.mlflow_run_id is not None]
    compared = ""
    if len(runs) > 1:
        asked = f"runs={quote(json.dumps(runs))}&experiments={quote(json.dumps([experiment]))}"
        compared = f"{base}/compare-runs?{asked}&{_TRAINING}"
    trials = f"{base}/experiments/{experiment}/runs?{key}&{_TRAINING}"
    return SweepLinks(view.name, trials, compared)


def _best_key(objective: Objective) -> str:
    """Return the metric that the runs of trials have their best value in."""
    return best_metric(objective) if objective.select == "best" else entity_key(objective.metric)
