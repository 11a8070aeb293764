from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
import uuid
from pathlib import Path

import pytest

from posetune import provenance
from posetune.provenance import COMMIT_VARIABLE, DIFF_BYTES, collect


def git(folder: Path, *arguments: str) -> str:
    identity = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b"}
    identity |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    return subprocess.run(
        ["git", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **identity},
    ).stdout.strip()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A committed source file in a folder of a repository."""
    file = tmp_path / "code" / "package" / "module.py"
    file.parent.mkdir(parents=True)
    file.write_text("x = 1\n")
    (tmp_path / "code" / "picture.bin").write_bytes(bytes(range(256)))
    git(tmp_path / "code", "init")
    git(tmp_path / "code", "add", ".")
    git(tmp_path / "code", "commit", "-m", "first")
    return file


def test_a_clean_tree_is_its_commit(source: Path) -> None:
    found = collect(source)
    assert found["commit"] == git(source.parent, "rev-parse", "HEAD")
    assert (found["dirty"], found["untracked_files"]) == (False, 0)
    assert "diff" not in found


def test_commit_and_difference_rebuild_the_tree(source: Path, tmp_path: Path) -> None:
    root = source.parents[1]
    source.write_text("x = 2  # \N{GREEK SMALL LETTER PHI}, no newline at the end")
    (root / "picture.bin").write_bytes(bytes(range(255, -1, -1)))
    (root / "new.py").write_text("y = 3\n")
    git(root, "add", "new.py")
    (root / "secret.txt").write_text("not tracked")
    git(root, "config", "diff.noprefix", "true")
    git(root, "config", "color.ui", "always")
    found = collect(source)
    assert (found["dirty"], found["untracked_files"]) == (True, 1)
    assert "not tracked" not in json.dumps(found)

    git(tmp_path, "clone", str(root), "again")
    (tmp_path / "code.diff").write_text(found["diff"]["text"])
    git(tmp_path / "again", "apply", str(tmp_path / "code.diff"))
    for name in ("package/module.py", "picture.bin", "new.py"):
        assert (tmp_path / "again" / name).read_bytes() == (root / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "note"), [(b"#" * 2 * DIFF_BYTES, "larger than"), (b"# \xff\n", "not UTF-8")]
)
def test_a_difference_that_is_not_kept_has_a_digest(
    source: Path, content: bytes, note: str
) -> None:
    source.write_bytes(content)
    diff = collect(source)["diff"]
    assert "text" not in diff
    assert note in diff["note"]
    assert len(diff["sha256"]) == 64
    assert len(json.dumps(collect(source))) < DIFF_BYTES


@pytest.mark.slow
def test_a_repository_around_an_installation_is_not_our_code(source: Path) -> None:
    installed = source.parents[1] / "venv" / "posetune.py"
    installed.parent.mkdir()
    installed.write_text("")
    assert collect(installed)["commit"] == "unknown"
    assert collect(installed)["dirty"] is None


@pytest.mark.parametrize(
    ("built_from", "commit", "dirty"),
    [("abc123", "abc123", False), ("abc123-dirty", "abc123", True), ("unknown", "unknown", None)],
)
def test_an_image_says_which_commit_it_was_built_from(
    source: Path, monkeypatch: pytest.MonkeyPatch, built_from: str, commit: str, dirty: bool | None
) -> None:
    installed = source.parents[1] / "venv" / "posetune.py"
    installed.parent.mkdir()
    installed.write_text("")
    monkeypatch.setenv(COMMIT_VARIABLE, built_from)
    found = collect(installed)
    assert (found["commit"], found["dirty"]) == (commit, dirty)
    assert collect(source)["commit"] != commit, "a repository counts more"


@pytest.mark.slow
def test_the_environment_leads_to_no_other_repository(
    source: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    assert collect(source)["commit"] != collect(repository / "pyproject.toml")["commit"]


def test_without_git_the_rest_is_there(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = collect(source)
    assert found["commit"] == "unknown"
    assert found["gpus"] == []
    assert found["versions"]["mlflow"] != "not installed"


def test_versions_hardware_and_threads_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    secret = uuid.uuid4().hex  # drawn, so that the difference to the commit cannot hold it
    monkeypatch.setenv("POSETUNE_DATABASE", f"postgresql://me:{secret}@host/x")
    found = collect()
    assert {"posetune", "torch", "ray", "optuna", "mlflow", "numpy"} <= set(found["versions"])
    assert f"mlflow=={found['versions']['mlflow']}" in found["packages"]
    assert found["processor"]
    assert found["cores"] >= found["usable_cores"] >= 1
    assert found["threads"]["OMP_NUM_THREADS"] == "3"
    assert secret not in json.dumps(found)


def test_the_dependencies_are_those_of_the_project(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[^A-Za-z0-9-]", line)[0] for line in project["dependencies"]]
    assert list(provenance.DEPENDENCIES) == names


def test_code_that_was_sent_is_not_the_version_that_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "posetune" in provenance.versions()
    monkeypatch.setenv(provenance.CODE_FILE, "code.json")
    assert "posetune" not in provenance.versions()
    assert provenance.versions()["torch"] != "not installed"
