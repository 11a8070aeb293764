"""What is shared: a browser and an MLflow server for a process, a folder for several users."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.browser import Browser, find_browser, start_browser
from support.mlflow_server import MlflowServer, empty_store
from support.other_user import become_possible


@pytest.fixture(scope="session")
def browser(required: Callable[[str, bool, str], None]) -> Iterator[Browser]:
    """A real browser."""
    program = find_browser()
    required("browser", program is not None, "install Chromium (Debian: chromium)")
    with start_browser(str(program)) as started:
        yield started


@pytest.fixture(scope="session")
def kept_mlflow_server(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path
) -> Iterator[MlflowServer]:
    folder = tmp_path_factory.mktemp("mlflow-server")
    shutil.copy(mlflow_template, folder / "server.db")
    server = MlflowServer(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def running_mlflow_server(kept_mlflow_server: MlflowServer, mlflow_template: Path) -> MlflowServer:
    """A running server whose store is empty, for tests that do not kill it."""
    empty_store(kept_mlflow_server.folder / "server.db", mlflow_template)
    return kept_mlflow_server


@pytest.fixture
def shared(required: Callable[[str, bool, str], None]) -> Iterator[Path]:
    """A folder that everybody may look into."""
    why = become_possible()
    required("root", not why, why)
    with tempfile.TemporaryDirectory(prefix="posetune-") as made:
        Path(made).chmod(0o755)
        yield Path(made)
