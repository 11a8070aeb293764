"""What is damaged, or would be lost by a restore, is refused before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support.worlds import World

from posetune.storage import open_storage
from posetune.trial.checkpoints import log_file

Worlds = Callable[..., World]


@pytest.mark.parametrize("what", ["rows/study.jsonl", "rows/backup.json", "state.bin", ".log"])
def test_a_damaged_backup_is_one_line_and_leaves_no_sweep(
    worlds: Worlds, place: str, tmp_path: Path, what: str
) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first")
    here.command("backup", "--to", place)
    damage(place, what)

    result = there.command("restore", place)

    assert result.returncode == 2
    assert "is a damaged backup" in result.stderr
    assert result.stderr.count("\n") == 1
    assert there.names == []


def damage(place: str, what: str) -> None:
    """Cut a byte off the first file whose name ends so."""
    if not place.startswith("s3://"):
        file = next(f for f in sorted(Path(place).rglob("*")) if f.as_posix().endswith(what))
        file.write_bytes(file.read_bytes()[:-1])
        return
    storage = open_storage(place)
    with storage.reading("") as copy:
        assert copy is not None
        file = next(f for f in sorted(copy.rglob("*")) if f.as_posix().endswith(what))
        name = file.relative_to(copy)
        kept = replace(storage, path=f"{storage.path}/{name.parent.as_posix()}")  # type: ignore[call-arg,type-var]
        file.write_bytes(file.read_bytes()[:-1])
        kept._put(file, name.name)  # type: ignore[attr-defined]


def test_places_that_are_not_empty_are_refused(worlds: Worlds, place: str, tmp_path: Path) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first", epochs=3)
    there.sweep("second", epochs=3)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    here.command("backup", "--to", place)

    for to, why in (
        (place, "holds a whole backup already"),
        (tmp_path / "other", "holds file and is no backup"),
        (there.home.folder, "and is no backup; give a new place"),
        (here.folder / "home" / "backup", "lies in what is backed up"),
        (f"{here.home.storage.address}/backup", "lies in what is backed up"),
        ("gs://bucket/x", "is not supported"),
    ):
        result = here.command("backup", "--to", to)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert why in result.stderr


def test_a_backup_does_not_lie_in_the_files_of_mlflow(worlds: Worlds, tmp_path: Path) -> None:
    here = worlds("here")
    here.sweep("first", epochs=1)
    artifacts = tmp_path / "artifacts"

    for to in (artifacts / "backup", tmp_path / "x" / ".." / "artifacts"):
        result = here.command("backup", "--to", to, "--artifacts", artifacts)

        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert f"lies in what is backed up ({artifacts})" in result.stderr
        assert not artifacts.exists()


def files_of(world: World) -> dict[str, bytes]:
    """All files of a home, but for SQLite's own beside its databases."""
    return {
        str(file.relative_to(world.home.folder)): file.read_bytes()
        for file in world.home.folder.rglob("*")
        if file.is_file() and not file.name.endswith(("-wal", "-shm"))
    }


def test_a_restore_is_refused_by_a_home_with_other_sweeps_before_anything_is_written(
    worlds: Worlds, place: str
) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first", epochs=3)
    there.sweep("second", epochs=3)
    here.command("backup", "--to", place)
    before = files_of(there), there.everything_of("second"), there.home.storage.children("stages")

    into = there.command("restore", place)

    assert (into.returncode, into.stderr.count("\n")) == (2, 1)
    assert "has sweeps already; restore into an empty one" in into.stderr
    assert there.names == ["second"]
    after = files_of(there), there.everything_of("second"), there.home.storage.children("stages")
    assert after == before
    assert there.home.storage.children("checkpoints") == ["second"]


@pytest.mark.parametrize("kind", ["sqlite and folders"], indirect=True)
@pytest.mark.parametrize("what", ["checkpoint", "log", "mlflow"])
def test_a_restore_is_refused_by_a_home_with_other_files_before_anything_is_written(
    worlds: Worlds, place: str, mlflow_template: Path, what: str
) -> None:
    here, there = worlds("here"), worlds("there")
    view = here.sweep("first")
    shutil.copy(mlflow_template, here.home.folder / "mlflow.db")
    here.command("backup", "--to", place)
    if what == "mlflow":
        shutil.copy(mlflow_template, there.home.folder / "mlflow.db")
        MlflowClient(there.home.tracking).create_experiment("other")
    else:
        folders = [c.folder for t in view.trials for c in t.checkpoints]
        other = {"checkpoint": f"{folders[-1]}/state.bin", "log": log_file("first", 3)}[what]
        file = Path(there.home.storage.where(other))
        file.parent.mkdir(parents=True)
        file.write_text("other")
    before = files_of(there)

    into = there.command("restore", place)

    assert (into.returncode, into.stderr.count("\n")) == (2, 1)
    why = "has runs or models already" if what == "mlflow" else "is there already and not what"
    assert why in into.stderr
    assert files_of(there) == before
    assert there.names == []


def test_a_server_is_named_by_what_is_needed_of_it(worlds: Worlds, place: str) -> None:
    here = worlds("here", tracking="http://127.0.0.1:9")
    here.sweep("first", epochs=3)

    result = here.command("backup", "--to", place)

    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "is a server, and its rows are in its database; name that one" in result.stderr
    assert here.command("backup", "--to", place, "--no-tracking").returncode == 0


def test_each_help_says_what_its_artifacts_are_and_has_an_example_on_s3(worlds: Worlds) -> None:
    here = worlds("here")
    for command, says in (("backup", "files lie"), ("restore", "files go")):
        words = " ".join(here.command(command, "--help").stdout.replace("│", " ").split())
        assert f"Where MLflow's {says}" in words
        assert f"posetune {command}" in words
        assert "s3://bucket/backups/2026-11-30" in words
        assert words.count("--json") == 2, "the option, and an example"
