"""What `make gpu-check` does when parts pass, fail, are cut off and are taken up again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import gpu_check
from support.gpu_check import PARTS, Part, Record, main, run_part

FACTS = {"commit": "c", "dirty": False, "device": {"device": "cpu", "count": 0}}
TESTS = """
import json, os, time
from pathlib import Path
import pytest

def test_well():
    bench = Path("runs/bench")
    (bench / "left.json").write_text(json.dumps({"paths": os.environ["PYTHONPATH"]}))

def test_ill():
    assert 1 == 2, "one is not two"

def test_absent():
    pytest.skip("no such device")

def test_endless():
    time.sleep(600)
"""

END = "-- the end of a part --"
COLLECT = f"""
import json, sys, pytest
for words in json.loads(sys.argv[1]):
    pytest.main(words)
    print({END!r}, flush=True)
"""
"""Lists the tests of all parts in one process, which imports everything once."""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Part]:
    """Parts of a test each, in a repository of their own."""
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_check, "_facts", lambda environment, commit: FACTS)
    (tmp_path / "test_it.py").write_text(TESTS)
    names = {"well": 60, "ill": 60, "absent": 60, "endless": 2}
    found = {n: Part(n, "", ("test_it.py", "-k", n), s, 0) for n, s in names.items()}
    found["well"] = Part("well", "", ("test_it.py", "-k", "well"), 60, 0, leaves=("left.json",))
    found["on a GPU"] = Part("on a GPU", "", ("test_it.py",), 60)
    found["watched"] = Part("watched", "", ("test_it.py",), 60, 0, under=("no-such-tool",))
    return found


def results(out: Path) -> dict[str, Any]:
    return {part["name"]: part for part in json.loads(out.read_text())["parts"]}


@pytest.mark.slow
def test_each_part_leaves_its_outcome_and_what_it_measured(
    parts: dict[str, Part], tmp_path: Path
) -> None:
    out = tmp_path / "out" / "check.json"
    code = main(["--device", "cpu", "--out", str(out)], parts=list(parts.values()))

    found = results(out)
    assert code == 1
    assert {name: part["outcome"] for name, part in found.items()} == {
        "well": "passed",
        "ill": "failed",
        "absent": "skipped",
        "endless": "timed out",
        "on a GPU": "skipped",
        "watched": "skipped",
    }
    assert "trainables" in found["well"]["figures"]["left"]["paths"]
    assert [test["outcome"] for test in found["well"]["tests"]] == ["passed"]
    assert "one is not two" in found["ill"]["message"]
    assert "one is not two" in found["ill"]["output"]
    assert found["on a GPU"]["message"] == "needs 1 CUDA device"
    assert "no-such-tool" in found["watched"]["message"]


def test_what_is_there_is_not_done_again_and_what_was_cut_off_is(
    parts: dict[str, Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "check.json"
    for name, outcome in {"well": "passed", "ill": "failed", "endless": "cut off"}.items():
        Record(out, FACTS).put({"name": name, "outcome": outcome})
    ran = []

    def run(part: Part, *_: Any, **__: Any) -> dict[str, Any]:
        begun = results(out)[part.name]["outcome"]  # what a cut would leave
        ran.append((part.name, begun))
        return {"name": part.name, "outcome": "passed", "seconds": 1.0, "message": ""}

    monkeypatch.setattr(gpu_check, "run_part", run)
    words = ["--device", "cpu", "--out", str(out), "--only", "well", "ill", "endless"]
    code = main(words, parts=list(parts.values()))

    assert ran == [("endless", "cut off")]
    assert code == 1, "a part of the file has failed"
    assert main([*words, "--minutes", "0"], parts=list(parts.values())) == 1
    assert len(ran) == 1


def test_a_part_that_is_too_slow_for_its_limit_holds_up_no_other(
    parts: dict[str, Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "_run", lambda *_: (None, ""))

    def outcome(*, left_s: float) -> str:
        device = {"count": 0}
        result = run_part(parts["endless"], device, environment={}, left_s=left_s)
        return str(result["outcome"])

    assert outcome(left_s=parts["endless"].limit_s) == "timed out"
    assert outcome(left_s=1) == "cut off"


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("passed", 0), ("skipped", 0), ("failed", 1), ("timed out", 1), ("cut off", 1)],
)
def test_its_exit_code_says_whether_all_is_done_and_good(
    outcome: str,
    code: int,
    parts: dict[str, Part],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran = []

    def run(part: Part, *_: Any, **__: Any) -> dict[str, Any]:
        ran.append(part.name)
        return {"name": part.name, "outcome": outcome, "seconds": 1.0, "message": ""}

    monkeypatch.setattr(gpu_check, "run_part", run)
    words = ["--device", "cpu", "--out", str(tmp_path / "check.json"), "--only", "well"]
    assert main([*words, "--minutes", "0"], parts=list(parts.values())) == 1
    assert "not done yet: well" in capsys.readouterr().out
    for _ in range(2):
        assert main(words, parts=list(parts.values())) == code
    assert len(ran) == (2 if outcome == "cut off" else 1)


@pytest.mark.parametrize(
    "change",
    [{"commit": "other"}, {"dirty": True}, {"device": {"device": "another", "count": 1}}],
)
def test_results_of_another_commit_or_device_or_of_changed_files_do_not_count(
    change: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "check.json"
    Record(out, FACTS).put({"name": "well", "outcome": "passed"})

    assert Record(out, FACTS).is_done("well")
    assert Record(out, {**FACTS, "dirty": None, "commit_given": True}).is_done("well")
    assert not Record(out, {**FACTS, **change}).is_done("well")
    assert "well" in results(tmp_path / "check.c-1.json"), "nothing is lost"


def test_nothing_is_lost_when_the_commit_changes_again(tmp_path: Path) -> None:
    out = tmp_path / "check.json"
    for commit in ("a" * 40, "b" * 40, "a" * 40, "c" * 40):
        Record(out, {**FACTS, "commit": commit}).put({"name": commit[0], "outcome": "passed"})

    kept = {file.name: [*results(file)] for file in tmp_path.iterdir()}
    assert kept == {
        "check.aaaaaaaaa-1.json": ["a"],
        "check.bbbbbbbbb-1.json": ["b"],
        "check.aaaaaaaaa-2.json": ["a"],
        "check.json": ["c"],
    }


def test_of_changed_files_the_newest_results_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "check.json"
    for name in ("first", "second", "third"):
        Record(out, {**FACTS, "dirty": True}).put({"name": name, "outcome": "passed"})

    kept = {file.name: [*results(file)] for file in tmp_path.iterdir()}
    assert kept == {"check.c-changed.json": ["second"], "check.json": ["third"]}
    assert not Record(out, FACTS).is_done("third"), "they say nothing of the commit"


def test_without_a_gpu_nothing_is_run(
    parts: dict[str, Part], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "check.json")], parts=list(parts.values())) == 2
    assert "no CUDA device" in capsys.readouterr().out
    assert not (tmp_path / "check.json").exists()


def test_every_part_names_files_that_are_there_and_has_a_name_of_its_own(repository: Path) -> None:
    assert len({part.name for part in PARTS}) == len(PARTS)
    for part in PARTS:
        files = [word for word in part.tests if word.startswith("tests/")]
        assert files
        assert all((repository / file).exists() for file in files)


@pytest.mark.slow
@pytest.mark.long
def test_every_part_selects_tests_that_no_other_part_has(repository: Path) -> None:
    words = [[*gpu_check.PYTEST[2:], "--collect-only", *part.tests] for part in PARTS]
    listed = subprocess.run(
        [sys.executable, "-c", COLLECT, json.dumps(words)],
        cwd=repository,
        capture_output=True,
        text=True,
    ).stdout
    chosen: dict[str, str] = {}
    for part, lines in zip(PARTS, listed.split(END)[:-1], strict=True):
        tests = [line for line in lines.splitlines() if "::" in line]
        assert tests, lines
        for test in () if part.under else tests:
            assert chosen.setdefault(test, part.name) == part.name
