"""Uploads a sweep's page and its files to the sweep's run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from posetune.home import Home
from posetune.study.tables.database import Database
from posetune.tracking.artifacts import upload
from posetune.tracking.projection import ship
from posetune.tracking.server.connection import connect, mlflow_faults_explained

__all__ = ["log_report"]

FOLDER = "report"


def log_report(database: Database, name: str, home: Home, files: Mapping[str, bytes]) -> str:
    """Upload files to the sweep's run, after the run itself is brought up to date.

    Args:
        database: the study.
        name: name of the sweep.
        home: where tracking is.
        files: content of each file by its name; files of the same names are replaced.

    Returns:
        The address at which a browser shows the run.

    Raises:
        BadInputError: there is no such sweep, or MLflow cannot be reached.
    """
    shipped = ship(database, name, home)
    with mlflow_faults_explained(home), tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / FOLDER
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        upload(connect(home), shipped.run_id, folders=[folder])
    return shipped.page
