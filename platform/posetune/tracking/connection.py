"""Reaches MLflow: a quiet client, a store that is made once, one writer at a time.

MLflow's own retries are off, because it also repeats requests that create something when their
answer was lost; what may be repeated goes through `patiently`, the rest is looked up again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.telemetry import set_telemetry_client
from requests import RequestException
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from posetune.api import BadInputError
from posetune.home import Home

__all__ = [
    "UI_HOST",
    "UI_PORT",
    "connect",
    "exclusive",
    "explain",
    "is_server",
    "mlflow_faults_explained",
    "open_experiment",
    "patiently",
    "public_address",
    "run_page",
]

UI_HOST, UI_PORT = "127.0.0.1", 5000

EXCLUSIVE_S = 60.0
"""How long to wait for another process that is writing to the same place."""

_TRANSIENT = (MlflowException, RequestException)
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

T = TypeVar("T")


def connect(home: Home) -> MlflowClient:
    """Return a client of the home's tracking store, which is made if it is the embedded one."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    # Once more, now that the environment says no: importing MLflow has just said yes.
    set_telemetry_client()  # type: ignore[no-untyped-call]
    if is_server(home):
        return MlflowClient(home.tracking)
    home.folder.mkdir(parents=True, exist_ok=True)
    with exclusive(home, "mlflow-store"):  # two writers that both make the tables break them
        _make_sqlite_store(home.tracking)
        client = MlflowClient(home.tracking)
        client.search_experiments(max_results=1)
    return client


def _make_sqlite_store(address: str) -> None:
    """Make an SQLite store whole or not at all.

    MLflow makes its tables by dozens of migrations; a process killed between two of them would
    leave a file that no MLflow opens again.
    """
    url = make_url(address)
    if url.get_backend_name() != "sqlite" or not url.database or Path(url.database).exists():
        return
    store = Path(url.database)
    store.parent.mkdir(parents=True, exist_ok=True)
    partial = store.with_name(f".{store.name}.partial")
    partial.unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
    partial.replace(store)


def is_server(home: Home) -> bool:
    """Whether tracking is a server, rather than a database that we open ourselves."""
    return home.tracking.startswith(("http://", "https://"))


def open_experiment(client: MlflowClient, home: Home, name: str) -> str:
    """Return the id of the experiment, made or restored if need be.

    A server decides itself where artefacts go; without one they go to `home.artifacts`.
    """
    found = patiently(lambda: client.get_experiment_by_name(name))
    if found is None:
        location = None if is_server(home) else home.artifacts.as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # someone else was faster
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def patiently(call: Callable[[], T]) -> T:
    """Make a call that may be repeated; do so when the server is overloaded or stumbles."""
    for pause in (0.2, 1.0):
        try:
            return call()
        except _TRANSIENT as error:
            if isinstance(error, MlflowException) and not _is_passing(error):
                raise
            time.sleep(pause)
    return call()


def _is_passing(error: MlflowException) -> bool:
    status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    return status >= 500 or status == 429


@contextmanager
def exclusive(home: Home, what: str) -> Iterator[None]:
    """Let one process of this home at a time do `what`.

    Raises:
        BadInputError: another process has been at it for a minute.
    """
    home.folder.mkdir(parents=True, exist_ok=True)
    path = home.folder / f".{what}.lock"
    deadline = time.monotonic() + EXCLUSIVE_S
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise BadInputError(
                        f"{path}: another process has held this for {EXCLUSIVE_S:.0f} s; "
                        "wait for it, or end it"
                    ) from error
                time.sleep(0.05)
        yield


@contextmanager
def mlflow_faults_explained(home: Home) -> Iterator[None]:
    """Turn MLflow's faults into one line for the user."""
    try:
        yield
    except (*_TRANSIENT, SQLAlchemyError) as error:
        raise BadInputError(
            f"MLflow at {public_address(home.tracking)}: {explain(error)}; start it or correct "
            "MLFLOW_TRACKING_URI (nothing is lost: the study has everything)"
        ) from error


def explain(error: Exception) -> str:
    """Return an error as one short line without passwords."""
    lines = str(error).strip().splitlines()
    return public_address(lines[0][:300] if lines else type(error).__name__)


def public_address(text: str) -> str:
    """Return a text with the user and password of each address in it left out."""
    return re.sub(r"://[^/\s@]+@", "://", text)


def run_page(home: Home, experiment_id: str, run_id: str) -> str:
    """Return where a browser shows a run; without a server that is where `posetune ui` runs."""
    base = public_address(home.tracking) if is_server(home) else f"http://{UI_HOST}:{UI_PORT}"
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
