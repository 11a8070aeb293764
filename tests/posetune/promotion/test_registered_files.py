"""Files of a version that were replaced are never served and no alias moves to them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pytest
from mlflow import MlflowClient

from posetune.api import BadInputError
from posetune.promotion import model_code
from posetune.promotion.aliases import roll_back
from posetune.promotion.decision import promote
from posetune.promotion.request import Promotion, Request
from posetune.storage.digest import digest_folder
from posetune.testing.toy import Toy

Damage = Callable[[Path], None]


def swap_weights(files: Path) -> None:
    weights = files / "artifacts/model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")


def change_code(files: Path) -> None:
    source = files / "code/posetune/testing/toy.py"
    source.write_text(source.read_text() + "\nprint('not what was registered')\n")


def leave_bytecode(files: Path) -> None:
    cached = files / "code/posetune/testing/__pycache__/toy.pyc"
    cached.parent.mkdir()
    cached.write_bytes(b"?")


def lose_a_module(files: Path) -> None:
    (files / "code/posetune/testing/toy.py").unlink()


def change_description(files: Path) -> None:
    description = files / "MLmodel"
    description.write_text(description.read_text().replace("posetune.testing.toy:Toy", "os:abort"))


def change_loader(files: Path) -> None:
    loader = files / "model_code.py"
    loader.write_text(loader.read_text().replace("raise DamagedModelError", "str"))


SEEN_BY_THE_LOADER = [swap_weights, change_code, leave_bytecode, lose_a_module]


@contextlib.contextmanager
def damaged(files: Path, damage: Damage) -> Iterator[None]:
    """Replace something in a folder, for a block."""
    whole = shutil.copytree(files, files.with_name("whole"))
    damage(files)
    try:
        yield
    finally:
        shutil.rmtree(files)
        whole.rename(files)


def promoted(scene: Any, **asked: Any) -> Promotion:
    request = Request("first", "toy", **asked)
    return promote(scene.database, scene.home, request, trainable=Toy)


def files_of(scene: Any, number: int = 1) -> Path:
    version = MlflowClient(scene.home.tracking).get_model_version("toy", str(number))
    return Path((version.source or "").removeprefix("file://"))


def aliases(scene: Any) -> dict[str, int]:
    client = MlflowClient(scene.home.tracking)
    found = client.get_registered_model("toy").aliases
    return {alias: int(number) for alias, number in found.items()}


@pytest.mark.slow
def test_an_alias_does_not_move_to_a_version_whose_files_were_replaced(scene: Any) -> None:
    scene.run_all()
    promoted(scene)
    says = r"models:/toy/1: its files are damaged: digest"
    for damage in [*SEEN_BY_THE_LOADER, change_description, change_loader]:
        with damaged(files_of(scene), damage):
            with pytest.raises(BadInputError, match=says):
                promoted(scene)  # the alias that holds it already
            with pytest.raises(BadInputError, match=says):
                promoted(scene, alias="champion", force="a test")
            assert aliases(scene) == {"candidate": 1}, damage.__name__
    promoted(scene, alias="champion", force="a test")  # whole again
    assert aliases(scene) == {"candidate": 1, "champion": 1}


@pytest.mark.slow
def test_an_alias_does_not_go_back_to_a_version_whose_files_were_replaced(scene: Any) -> None:
    run = scene.open()
    scene.run_trial(run, 5.0)
    promoted(scene)
    scene.run_trial(run, 3.0)
    promoted(scene)
    change_code(files_of(scene, 1))

    with pytest.raises(BadInputError, match=r"models:/toy/1: its files are damaged"):
        roll_back(scene.home, model="toy", alias="candidate")
    assert aliases(scene) == {"candidate": 2}


@pytest.mark.slow
def test_mlflow_does_not_load_weights_or_code_that_were_replaced(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    scene.run_all()
    promoted(scene)
    files = files_of(scene)
    mlflow.pyfunc.load_model(str(files))
    says = r"registered was .* restore them from a backup"
    for damage in SEEN_BY_THE_LOADER:
        with damaged(files, damage), pytest.raises(RuntimeError, match=says):
            mlflow.pyfunc.load_model(str(files))


_LOAD = """
import sys
# Neither an installed posetune nor the repository: only what was saved with the model.
sys.path = [p for p in sys.path if not p.rstrip("/").endswith(("/platform", "/trainables"))]
import mlflow.pyfunc
mlflow.pyfunc.load_model(sys.argv[1])
import posetune
assert posetune.__file__.startswith(sys.argv[1]), posetune.__file__
"""


@pytest.mark.long
@pytest.mark.slow
def test_loading_a_version_leaves_its_files_as_they_were(scene: Any) -> None:
    scene.run_all()
    promoted(scene)
    files = files_of(scene)
    before = digest_folder(files)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    loaded = subprocess.run(
        [sys.executable, "-c", _LOAD, str(files)],
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in environment.items() if k != "PYTHONPATH"},
    )

    assert loaded.returncode == 0, loaded.stderr
    assert digest_folder(files) == before


def test_the_loader_computes_digests_as_the_registry_does(tmp_path: Path) -> None:
    for name in ("a.txt", "b/c.txt", "b/é"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)

    assert model_code.digest_folder(tmp_path) == digest_folder(tmp_path)
