"""A real MLflow server on loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from support.ports import find_free_port

__all__ = ["MlflowServer", "empty_store"]


class MlflowServer:
    """An MLflow server on loopback that can be started and killed again and again."""

    def __init__(self, folder: Path, backend: str | None = None) -> None:
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.backend = backend or f"sqlite:///{folder / 'server.db'}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        environment = {
            **os.environ,
            "MLFLOW_BACKEND_STORE_URI": self.backend,
            "MLFLOW_ARTIFACTS_DESTINATION": (self.folder / "server-artifacts").as_uri(),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urlopen(f"{self.url}/health", timeout=5):
                    return
            except (URLError, OSError):
                assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
                time.sleep(0.2)

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def empty_store(store: Path, template: Path) -> None:
    """Make the tables of an MLflow store hold what those of a template do, under its server."""
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS template", (str(template),))
        connection.execute("BEGIN IMMEDIATE")
        listed = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        for (name,) in connection.execute(listed).fetchall():
            # Without those that the database computes itself.
            columns = connection.execute(f'PRAGMA table_info("{name}")').fetchall()
            names = ", ".join(f'"{column[1]}"' for column in columns)
            connection.execute(f'DELETE FROM main."{name}"')
            connection.execute(
                f'INSERT INTO main."{name}" ({names}) SELECT {names} FROM template."{name}"'
            )
        connection.execute("COMMIT")
