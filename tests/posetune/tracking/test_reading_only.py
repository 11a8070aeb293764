"""MLflow's store of a colleague is read without the right to write to it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from posetune.home import Home
from posetune.tracking.server.connection import connect


@pytest.fixture
def colleagues_home(
    tmp_path: Path, mlflow_template: Path, required: Callable[[str, bool, str], None]
) -> Iterator[Path]:
    """A home with a store on a file system that is mounted for reading."""
    required("root", os.geteuid() == 0, "be root, to mount a file system for reading")
    home = tmp_path / "what? 50%25"
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(home)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    required("root", mounted.returncode == 0, f"be allowed to mount: {mounted.stderr.strip()}")
    try:
        shutil.copy(mlflow_template, home / "mlflow.db")
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        yield home
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)


@pytest.mark.slow
def test_a_store_is_read_where_nothing_may_be_written(
    colleagues_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "where the command is called"
    here.mkdir()
    monkeypatch.chdir(here)
    client = connect(Home.resolve(colleagues_home))
    assert [found.name for found in client.search_experiments()] == ["Default"]
    assert client.search_registered_models() == []
    assert [file.name for file in colleagues_home.iterdir()] == ["mlflow.db"]
    assert not list(here.iterdir())
