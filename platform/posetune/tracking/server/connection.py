"""Connects to MLflow: makes a quiet client, makes the store once, lets one writer in at a time.

MLflow's own retries are off, because it repeats a request that creates something even if only the
answer was lost. Requests that may be repeated go through `patiently`, the others through
`make_once`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.telemetry import set_telemetry_client
from requests import RequestException
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from posetune.api import BadInputError
from posetune.home import Home, sqlite_address
from posetune.storage.credentials import check_mlflow
from posetune.storage.whole_files import writing_whole
from posetune.study.tables.database import REACH_S, may_write, url_for_reading
from posetune.tracking.server.moved_home import follow_move

__all__ = [
    "UI_HOST",
    "UI_PORT",
    "connect",
    "exclusive",
    "explain",
    "is_server",
    "make_once",
    "mlflow_faults_explained",
    "open_experiment",
    "patiently",
    "public_address",
    "reach_tracking",
    "run_page",
    "store_address",
]

UI_HOST = "127.0.0.1"
"""Address on which `posetune ui` serves by default."""
UI_PORT = 5000
"""TCP port on which `posetune ui` serves by default."""

EXCLUSIVE_S = 60.0
"""Seconds to wait for another process that is writing to the same place."""

_TRANSIENT = (MlflowException, RequestException)
_KIND = "mlflow.experimentKind"
_TRAINING = "custom_model_development"
"""Kind of our experiments. Without this tag the UI takes them for experiments with language models
and hides charts and models."""
_TRAINING_VIEW = "?workflowType=machine_learning"
_PAUSES_S = (0.2, 1.0)
"""Seconds to wait before the second and before the third attempt of a request."""
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

T = TypeVar("T")


def connect(home: Home) -> MlflowClient:
    """Return a client of the home's tracking store; a database of ours is made if need be.

    Raises:
        BadInputError: others can read the file with MLflow's password, or the store has the tables
            of another MLflow.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    # Importing MLflow has started its telemetry; this reads the environment again and stops it.
    set_telemetry_client()  # type: ignore[no-untyped-call]
    if is_server(home):
        check_mlflow()
        return MlflowClient(home.tracking)
    url = _database_of(home)
    if url.get_backend_name() == "sqlite" and url.database:
        _make_sqlite_store(Path(url.database), home)
        with _other_tables_refused(home):
            if may_write(Path(url.database)):
                with exclusive(home.folder, "mlflow-store"):
                    follow_move(Path(url.database), home)
            return MlflowClient(store_address(home))
    with (
        _other_tables_refused(home),
        exclusive(home.folder, "mlflow-store"),
    ):  # two processes would break each other's tables
        client = MlflowClient(home.tracking)
        client.search_experiments(max_results=1)
    return client


def store_address(home: Home) -> str:
    """Return the tracking URI for MLflow: that of the home, or one for reading only.

    An SQLite store that this user may not write to is a colleague's.
    """
    url = None if is_server(home) else _database_of(home)
    if url is None or url.get_backend_name() != "sqlite" or not url.database:
        return home.tracking
    file = Path(url.database)
    if not file.exists() or may_write(file):
        return home.tracking
    # With its driver named: MLflow takes what follows `sqlite:///` for a path and makes folders.
    url = url_for_reading(file).set(drivername="sqlite+pysqlite")
    return url.render_as_string(hide_password=False)


def reach_tracking(home: Home) -> None:
    """Make sure that a sweep could be shown in MLflow, without making anything there.

    Raises:
        BadInputError: MLflow cannot be reached; the message says why.
    """
    if not is_server(home):
        url = _database_of(home)
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
            return  # the sweep will make the file
        with mlflow_faults_explained(home):
            _reach_database(url)
    with mlflow_faults_explained(home):
        connect(home).search_experiments(max_results=1)


def _database_of(home: Home) -> URL:
    """Return the address of MLflow's store where it is a database.

    Raises:
        BadInputError: the address is of another kind.
    """
    try:
        return make_url(home.tracking)
    except ArgumentError as error:
        raise BadInputError(
            f"MLFLOW_TRACKING_URI: {home.tracking!r} is neither a server nor a database; write "
            "http://HOST:PORT, sqlite:////path/mlflow.db or postgresql://..."
        ) from error


def _reach_database(url: URL) -> None:
    """Connect to a database of MLflow's once; MLflow itself would try for minutes.

    Raises:
        SQLAlchemyError: it does not answer.
    """
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        return
    options = {"connect_timeout": REACH_S} if url.get_backend_name() == "postgresql" else {}
    engine = create_engine(url, connect_args=options)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _make_sqlite_store(store: Path, home: Home) -> None:
    """Make an SQLite store completely or not at all; of two processes at once, one makes it.

    MLflow makes its tables by dozens of migrations; a process that is killed between two of them
    would leave a file that no MLflow opens again.
    """
    if store.exists():
        return
    with exclusive(store.parent, store.name):
        if store.exists():
            return
        with writing_whole(store) as partial:
            for remnant in store.parent.glob(f"{partial.name}*"):
                remnant.unlink()
            # SQLite would replay the journals of a store that somebody deleted into the new one.
            for journal in store.parent.glob(f"{store.name}-*"):
                journal.unlink()
            os.close(os.open(partial, os.O_CREAT | os.O_RDWR, 0o600))  # its owner's alone
            made = SqlAlchemyStore(sqlite_address(partial), home.artifacts.as_uri())  # type: ignore[no-untyped-call]
            # MLflow keeps its stores, and no connection may follow the moved file.
            made.engine.dispose()
            with contextlib.closing(sqlite3.connect(partial)) as connection:
                # The file keeps this mode. With it a commit takes a third of the time, and readers
                # do not wait for the writer.
                connection.execute("PRAGMA journal_mode=WAL")


@contextmanager
def _other_tables_refused(home: Home) -> Iterator[None]:
    """Say what to do where a store has the tables of another MLflow.

    MLflow itself calls a store out of date also where it is the MLflow that is.

    Raises:
        BadInputError: names the store, and the command that helps.
    """
    try:
        yield
    except MlflowException as error:
        found = re.search(r"found version (\w+), but expected (\w+)", str(error))
        if found is None:
            raise
        there, ours = found.groups()
        store = public_address(home.tracking)
        if _is_known(there):
            whose = f"an older MLflow (migration {there}, MLflow {mlflow.__version__} needs {ours})"
            remedy = f"stop what uses it, copy it, then: mlflow db upgrade {shlex.quote(store)}"
        else:
            whose = f"a newer MLflow (MLflow {mlflow.__version__} knows no migration {there})"
            remedy = (
                "bring this environment to the MLflow that wrote it (pip install --upgrade "
                "mlflow), or give another MLFLOW_TRACKING_URI"
            )
        raise BadInputError(
            f"MLflow at {store}: has the tables of {whose}; {remedy} (nothing is lost: the study "
            "has everything)"
        ) from error


def _is_known(migration: str) -> bool:
    """Whether the MLflow of this environment has a migration."""
    from alembic.script import ScriptDirectory  # takes a while, and is needed here only
    from alembic.util import CommandError

    config = _get_alembic_config(db_url="")  # type: ignore[no-untyped-call]
    scripts = ScriptDirectory.from_config(config)
    try:
        return scripts.get_revision(migration) is not None
    except CommandError:
        return False


def is_server(home: Home) -> bool:
    """Return whether tracking is a server, rather than a database that we open ourselves."""
    return home.tracking.startswith(("http://", "https://"))


def open_experiment(
    client: MlflowClient, home: Home, name: str, tags: Mapping[str, str] | None = None
) -> str:
    """Return the id of an experiment, which is made or restored if need be.

    A server decides itself where artefacts go; without a server they go to `home.artifacts`.

    Args:
        client: of the tracking store.
        home: where tracking and artefacts are.
        name: name of the experiment.
        tags: further tags that it is to have.
    """

    def find() -> Experiment | None:
        return client.get_experiment_by_name(name)

    def make() -> Experiment:
        location = None if is_server(home) else home.artifacts.as_uri()
        return client.get_experiment(client.create_experiment(name, artifact_location=location))

    found = patiently(find) or make_once(make, find)
    if found.lifecycle_stage != "active":
        patiently(lambda: client.restore_experiment(found.experiment_id))
    for key, value in {_KIND: _TRAINING, **(tags or {})}.items():
        if found.tags.get(key) != value:
            patiently(lambda k=key, v=value: client.set_experiment_tag(found.experiment_id, k, v))  # type: ignore[misc]
    return str(found.experiment_id)


def patiently(call: Callable[[], T], *, requests: int = 1) -> T:
    """Make a call that may be repeated; repeat it, up to twice, after a fault that may pass.

    Args:
        call: makes the call.
        requests: how many requests MLflow makes of it; each of them may meet as many faults.
    """
    for pause in _PAUSES_S * requests:
        try:
            return call()
        except _TRANSIENT as error:
            if not _is_passing(error):
                raise
            time.sleep(pause)
    return call()


def make_once(make: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Make something that must not be made twice; look for it before each repetition.

    It may be there after a fault because only the answer to `make` was lost, or because another
    process was faster.

    Args:
        make: makes it, in one call.
        find: returns it, or None if it is not there.
    """
    for pause in _PAUSES_S:
        try:
            return make()
        except _TRANSIENT as error:
            found = patiently(find)
            if found is not None:
                return found
            if not _is_passing(error):
                raise
            time.sleep(pause)
    return make()


def _is_passing(error: Exception) -> bool:
    """Return whether a fault may pass: no connection, a stumbling or an overloaded server.

    Some of MLflow's methods report such a fault as a wrong argument, with the fault as its cause.
    """
    if isinstance(error.__cause__, _TRANSIENT):
        return _is_passing(error.__cause__)
    if not isinstance(error, MlflowException):
        return True
    status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    return status >= 500 or status == 429


@contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Let one process at a time do something with a folder, during a block.

    Args:
        folder: the folder, which is made if it does not exist.
        what: name of what is done; different names do not exclude each other.

    Raises:
        BadInputError: another process does not end its block within a minute.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{what}.lock"
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
    """Turn MLflow's faults in a block into one line for the user.

    Raises:
        BadInputError: MLflow or its database reported a fault.
    """
    try:
        yield
    except (*_TRANSIENT, SQLAlchemyError) as error:
        raise BadInputError(
            f"MLflow at {public_address(home.tracking)}: {explain(error)}; start it or correct "
            "MLFLOW_TRACKING_URI (nothing is lost: the study has everything)"
        ) from error


def explain(error: Exception) -> str:
    """Return an error as one short line without passwords."""
    if isinstance(error, BadInputError):  # one of ours, which ends with what to do
        return public_address(" ".join(str(error).split()))
    text = str(error).strip()
    if "Max retries exceeded" in text:  # three nested causes on one line of 300 characters
        causes = re.findall(r"\[Errno -?\d+\] ([^'\")(]+)|(timed out)", text)
        cause = next((first or second for first, second in causes), "no answer")
        host = re.search(r"host='([^']*)', port=(\d+)", text)
        return f"no connection to {':'.join(host.groups()) if host else 'it'} ({cause})"
    lines = text.splitlines()
    return public_address(lines[0][:300] if lines else type(error).__name__)


def public_address(text: str) -> str:
    """Return a text without the users and passwords of the addresses in it."""
    return re.sub(r"://[^/\s]*@", "://", text)


def run_page(home: Home, experiment_id: str, run_id: str) -> str:
    """Return the address at which a browser shows a run.

    Without a server it is an address of `posetune ui`, which shows the run while it is running.
    """
    base = public_address(home.tracking) if is_server(home) else f"http://{UI_HOST}:{UI_PORT}"
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}{_TRAINING_VIEW}"
