"""A job's driver works in a folder of its own, whatever Ray does to the one it began in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from posetune.execution.jobs.job_folder import own_folder
from posetune.provenance import CODE_FILE


@pytest.fixture
def rays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which Ray starts a job."""
    folder = tmp_path / "working_dir_files"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_job_whose_folder_is_deleted_still_has_a_working_directory(
    rays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CODE_FILE, "code.json")
    with own_folder():
        inside = Path.cwd()
        rays.rmdir()
        assert list(inside.iterdir()) == []
        assert inside != rays
        (inside / "file").touch()
    assert os.getcwd() == "/"  # noqa: PTH109
    assert not inside.exists()


def test_a_job_is_back_where_it_was_and_another_command_stays_there(
    rays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CODE_FILE, raising=False)
    with own_folder():
        assert Path.cwd() == rays
    monkeypatch.setenv(CODE_FILE, "code.json")
    with own_folder():
        assert Path.cwd() != rays
    assert Path.cwd() == rays
