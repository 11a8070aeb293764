"""Runs the mutants and the planted faults, one at a time, each against its tests.

`make mutants`, or `python tests/mutants/run.py LIST OUT [ID ...]`. Each is planted in a copy of the
tracked files, never in the checkout. A mutant is run against the tests of its group until one
fails: first those named after its file, then the fast ones, then, if it survives, the slow ones.
A fault is run against the one test that is said to find it. What takes too long counts as found.
The tests must pass on the code as it is: that is run first. What is already in OUT is not run
again, but for what only the fast tests have judged (`--fast`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from planting import GoneError, find, plant

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PASSES = ("not slow and not long", "slow or long")
ONE_TEST_S, ALL_TESTS_S = 180, 1200
"""After which a test, and a pass of them, counts as one that hangs."""
SURVIVED_THE_FAST = "survived the fast tests"
NOTHING_SELECTED = "no test was selected"


def main() -> None:
    """Run what is asked for, and keep each result as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("list", type=Path, help="mutants.json or faults.json")
    parser.add_argument("out", type=Path, help="where the results go, as JSON")
    parser.add_argument("--fast", action="store_true", help="leave the slow tests for another run")
    parser.add_argument("ids", nargs="*", help="run these; default: all")
    asked = parser.parse_args()
    groups = json.loads((HERE / "groups.json").read_text())
    entries = [
        e for e in json.loads(asked.list.read_text()) if e["id"] in asked.ids or not asked.ids
    ]
    results = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = copy_tracked(Path(folder) / "tree")
        passes: dict[tuple[str, ...], list[str]] = {}
        for entry in entries:
            known = results.get(entry["id"], {}).get("outcome")
            if known not in (None, SURVIVED_THE_FAST) or (known and asked.fast):
                continue
            tests = tuple(groups[entry["group"]]["tests"] if "group" in entry else entry["tests"])
            if tests not in passes:
                passes[tests] = check_healthy(tree, tests, PASSES[:1] if asked.fast else PASSES)
            left = [p for p in passes[tests] if known is None or p != PASSES[0]]
            result = judge(tree, entry, tests, left)
            if asked.fast and result["outcome"] == "survived":
                result["outcome"] = SURVIVED_THE_FAST
            results[entry["id"]] = result
            print(entry["id"], result, flush=True)
            write(asked.out, results)


def copy_tracked(to: Path) -> Path:
    """Copy the files that git knows, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


def check_healthy(tree: Path, tests: Sequence[str], passes: Sequence[str]) -> list[str]:
    """Return the passes that select any of these tests; refuse tests that fail without a fault."""
    said = {selection: run_pytest(tree, tests, selection) for selection in passes}
    for failed in said.values():
        if failed not in ("", NOTHING_SELECTED):
            sys.exit(f"without any fault {failed} fails; nothing can be said")
    return [selection for selection, failed in said.items() if failed != NOTHING_SELECTED]


def judge(
    tree: Path, entry: dict[str, Any], tests: Sequence[str], passes: Sequence[str]
) -> dict[str, str]:
    """Plant one entry, run its tests, and put the tree back."""
    before: dict[Path, str] = {}
    try:
        for edit in entry["edits"]:
            file = find(tree, edit).file
            before.setdefault(file, file.read_text())
            plant(tree, edit)
        found_by = find_failure(tree, tests, passes, stem=file.stem)
    except GoneError:
        return {"outcome": "its line is gone"}
    finally:
        for file, text in before.items():
            file.write_text(text)
    where = {"file": str(next(iter(before)).relative_to(tree))}
    return where | ({"outcome": "found", "by": found_by} if found_by else {"outcome": "survived"})


def find_failure(tree: Path, tests: Sequence[str], passes: Sequence[str], *, stem: str) -> str:
    """Return a test that fails, empty if none does; looked for first where it is likely."""
    folders = [tree / test for test in tests if (tree / test).is_dir()]
    named = [str(file) for folder in folders for file in folder.rglob(f"test_{stem}.py")]
    if named and PASSES[0] in passes:
        failure = run_pytest(tree, named, PASSES[0])
        if failure not in ("", NOTHING_SELECTED):
            return failure
    return next(filter(None, (run_pytest(tree, tests, selection) for selection in passes)), "")


def resolve(tree: Path, test: str) -> str:
    """Return where a test stands now, if its file was moved."""
    path, *name = test.split("::")
    if not (tree / path).exists():
        found = sorted((tree / "tests").rglob(Path(path).name))
        if len(found) != 1:
            sys.exit(f"{test}: {len(found)} files of that name; mend its list")
        path = str(found[0].relative_to(tree))
    return "::".join([path, *name])


def run_pytest(tree: Path, tests: Sequence[str], selection: str) -> str:
    """Run tests of a tree until one fails; return which, empty if none does."""
    tests = [resolve(tree, test) for test in tests]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider"]
    # Neither the workers nor the selection that a usual run asks for.
    command += ["--override-ini", "addopts=--import-mode=importlib"]
    command += ["--timeout", str(ONE_TEST_S), "-m", selection, *tests]
    paths = os.pathsep.join(str(tree / root) for root in ("platform", "trainables"))
    # No compiled files: a mutant may have the size and the second of the file before it.
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    environment["OMP_NUM_THREADS"] = "1"
    with subprocess.Popen(
        command,
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=ALL_TESTS_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"the tests hung for {ALL_TESTS_S} s"
    if process.returncode == pytest.ExitCode.OK:
        return ""
    if process.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        return NOTHING_SELECTED
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", said, re.MULTILINE)
    if failed is None:
        return f"pytest ended with {process.returncode}"
    return failed[1] + (" (hung)" if "Timeout (>" in said else "")


def write(file: Path, results: dict[str, dict[str, str]]) -> None:
    """Write the results, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    partial.replace(file)


if __name__ == "__main__":
    main()
