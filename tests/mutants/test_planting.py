"""A planted fault is put where it belongs, wherever its lines have moved, or said to be gone."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
FAULTS = json.loads((HERE / "faults.json").read_text())
EDIT = {"file": "rungs.py", "within": "report", "before": "return a < b", "after": "return a > b"}
SOURCE = """
def other(a, b):
    return a < b

class Rungs:
    def report(self, a, b):
        if a:
            return a < b
        return False
"""


@pytest.fixture(scope="module")
def planting() -> ModuleType:
    spec = importlib.util.spec_from_file_location("planting", HERE / "planting.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(tree: Path, name: str, text: str) -> Path:
    file = tree / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_only_the_lines_of_the_named_function_are_changed(
    planting: ModuleType, tmp_path: Path
) -> None:
    file = write(tmp_path, "platform/study/rungs.py", SOURCE)
    assert planting.plant(tmp_path, EDIT) == file
    expected = SOURCE.replace("            return a < b", "            return a > b")
    assert file.read_text() == expected


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("trainables/elsewhere/pruning.py", "", ""),  # the file was moved and renamed
        ("platform/study/rungs.py", "def report", "def decide"),  # the function was renamed
        ("platform/other.py", "class Rungs:", "class Ladder:"),
    ],
)
def test_lines_are_found_after_a_move_or_a_rename(
    planting: ModuleType, tmp_path: Path, name: str, old: str, new: str
) -> None:
    source = SOURCE.replace("other", "another").replace("    return a < b\n\n", "    return b\n\n")
    file = write(tmp_path, name, source.replace(old, new) if old else source)
    assert planting.plant(tmp_path, EDIT) == file
    assert "return a > b" in file.read_text()


@pytest.mark.parametrize("twice", [False, True])
def test_lines_that_are_gone_or_not_told_from_others_are_said_to_be(
    planting: ModuleType, tmp_path: Path, twice: bool
) -> None:
    source = "def first(a, b):\n    return a < b\n\ndef second(a, b):\n    return a < b\n"
    file = write(tmp_path, "platform/rungs.py", source if twice else "def report(): ...\n")
    before = file.read_text()
    with pytest.raises(planting.GoneError):
        planting.plant(tmp_path, EDIT)
    assert file.read_text() == before


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault["id"])
def test_every_fault_can_be_planted_in_the_code_of_today(
    planting: ModuleType, repository: Path, tmp_path: Path, fault: dict[str, Any]
) -> None:
    for root in planting.SOURCES:
        for file in (repository / root).rglob("*.py"):
            (tmp_path / file.relative_to(repository)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, tmp_path / file.relative_to(repository))
    for edit in fault["edits"]:
        planted = planting.plant(tmp_path, edit)
        compile(planted.read_text(), str(planted), "exec")
    for test in fault["tests"]:
        path, _, name = test.partition("::")
        assert f"def {name}(" in (repository / path).read_text()
