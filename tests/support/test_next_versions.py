"""What `make test-next` says of a run of pytest that fails."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.next_versions import ADAPTERS, main, new_ones, read_breakages, shown

TESTS = """
import sys

import pytest

sys.path.insert(0, "platform")
from ours.adapter import adapt


@pytest.mark.parametrize("what", ["a", "b"])
def test_adapter(what):
    adapt(what)


def test_alone():
    assert 1 == 2, "never"


def test_whole():
    assert adapt is not None
"""


def test_it_names_the_place_in_our_code_and_the_tests(tmp_path: Path) -> None:
    package = tmp_path / "platform" / "ours"
    package.mkdir(parents=True)
    (package / "adapter.py").write_text("def adapt(what):\n    return {}['gone since 3.0']\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    words = ["-q", "-p", "no:cacheprovider", "--junitxml=report.xml"]
    subprocess.run([sys.executable, "-m", "pytest", *words], cwd=tmp_path, capture_output=True)

    found = read_breakages(tmp_path / "report.xml")

    assert {one.test.rpartition(".")[2] for one in found} == {
        "test_adapter[a]",
        "test_adapter[b]",
        "test_alone",
    }
    first, *rest = shown(found).splitlines()
    assert first.startswith("platform/ours/adapter.py:2: 2 tests, e.g. KeyError: 'gone since 3.0'")
    assert any(line.startswith("tests/test_it.py:") for line in rest)
    assert shown([]) == "nothing breaks"
    alone = next(one for one in found if one.test.endswith("test_alone"))
    assert new_ones([*found, alone], [replace(alone, why="other words")]) == [
        one for one in found if one != alone
    ]


def test_a_file_of_constraints_that_is_none_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none.txt"
    assert main(["--constraint", str(missing)]) == 2
    assert capsys.readouterr().out.startswith(f"--constraint {missing}: is no file")


def test_what_it_runs_first_is_there(repository: Path) -> None:
    assert all((repository / test).exists() for tests in ADAPTERS.values() for test in tests)
