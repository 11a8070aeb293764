"""Runs the tests against the newest Ray, Optuna, MLflow and torch, and says what breaks and where.

python tests/support/next_versions.py [--constraint FILE]    (make test-next)

It makes a virtual environment of its own, first with the pinned versions, then with the newest that
pip finds for the four, whatever our own ranges say; pip says on the way that ours do not agree. The
tests of what is written against each of them come first, then all fast tests. What fails is run
again with the pinned versions: what fails with them, too, is no matter of versions. It ends with 1
where something breaks, and with 2 where it could not look. What pytest printed is in runs/next.

The newest torch brings CUDA, nearly three gigabytes. `--constraint` names a file as pip takes it,
e.g. with the line `torch<2.14`, for what is not to be newer.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

__all__ = ["Breakage", "main", "new_ones", "read_breakages", "shown"]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "runs" / "next"
PYTHON = FOLDER / "venv" / "bin" / "python"
CACHE = FOLDER / "cache"
"""Where pytest keeps which tests failed."""

ADAPTERS = {
    "ray": ["tests/posetune/execution/test_tune_adapter.py"],
    "optuna": ["tests/posetune/study/search", "tests/posetune/report/test_optuna_storage.py"],
    "mlflow": ["tests/posetune/tracking", "tests/posetune/promotion"],
    "torch": ["tests/posetune/trial/worker", "tests/selfpose/training"],
}
"""The tests of what is written against each package."""

ASKED = {"ray": "ray[tune,default]"}
"""What pip is asked for, where that is more than the package's name."""

_OURS = re.compile(r"^((?:platform|trainables|tests)/[\w/.-]+\.py:\d+)", re.MULTILINE)
"""A frame of our own in what pytest prints of a failure."""


@dataclass(frozen=True)
class Breakage:
    """A test that fails."""

    test: str
    why: str
    """The first line of its error."""
    where: str
    """The innermost frame of our packages, or of the test; empty where there is none."""


def read_breakages(report: Path) -> list[Breakage]:
    """Return what failed in a JUnit report of pytest."""
    return list(_breakages(ElementTree.parse(report).iter("testcase")))


def _breakages(cases: Iterable[ElementTree.Element]) -> Iterator[Breakage]:
    for case in cases:
        for found in (*case.findall("failure"), *case.findall("error")):
            frames = _OURS.findall(found.text or "")
            product = [frame for frame in frames if not frame.startswith("tests/")]
            where = (product or frames or [""])[-1]
            lines = (found.get("message") or "").strip().splitlines() or ["no message"]
            yield Breakage(f"{case.get('classname')}.{case.get('name')}", lines[0], where)


def shown(breakages: Sequence[Breakage]) -> str:
    """Return what breaks as text, by the place in our code, the place of the most tests first."""
    places: dict[str, list[Breakage]] = defaultdict(list)
    for one in breakages:
        places[one.where or "outside of our code"].append(one)
    lines = []
    for where, found in sorted(places.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"{where}: {len(found)} tests, e.g. {found[0].why}")
        lines += [f"    {one.test}" for one in found]
    return "\n".join(lines) or "nothing breaks"


def _versions() -> dict[str, str]:
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    command = [str(PYTHON), "-c", code, *ADAPTERS]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(ADAPTERS, said, strict=True))


def _pip(*words: str) -> None:
    subprocess.run([str(PYTHON), "-m", "pip", "install", "--quiet", *words], check=True, cwd=ROOT)


def _prepare(constraints: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Make the environment; return the versions that are pinned and those that are newest."""
    shutil.rmtree(CACHE, ignore_errors=True)
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PYTHON.parents[1])], check=True)
        _pip("--upgrade", "pip>=25.1")
    _pin()
    pinned = _versions()
    _pip("--upgrade", *constraints, *(ASKED.get(name, name) for name in ADAPTERS))
    return pinned, _versions()


def _pin() -> None:
    """Give the environment the pinned versions."""
    _pip("--constraint", "cluster/constraints.txt", "--editable", ".", "--group", "dev")


def _run(title: str, words: Sequence[str]) -> list[Breakage]:
    report = FOLDER / f"{title}.xml"
    report.unlink(missing_ok=True)
    command = [str(PYTHON), "-m", "pytest", "-q", "-n", "3", f"--junitxml={report}", *words]
    printed = FOLDER / f"{title}.log"
    with printed.open("wb") as log:
        subprocess.run(
            [*command, "-o", f"cache_dir={CACHE}"],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if not report.exists():
        return [Breakage(title, f"pytest itself does not start; {printed} says why", "")]
    return read_breakages(report)


def new_ones(broken: Iterable[Breakage], before: Iterable[Breakage]) -> list[Breakage]:
    """Return what breaks and did not before, each test once."""
    known = {one.test for one in before}
    return list({one.test: one for one in broken if one.test not in known}.values())


def _judge(broken: Sequence[Breakage]) -> int:
    """Say what of it is a matter of versions, and return how the command ends."""
    if not broken:
        print("\nnothing breaks with the newest versions")
        return 0
    print("\nwhat failed, again with the pinned versions:", flush=True)
    _pin()
    before = _run("pinned", ["--last-failed", "--last-failed-no-failures=none"])
    print(f"fails with them, too:\n{shown(before)}")
    found = new_ones(broken, before)
    print(f"\nbreaks with the newest versions alone:\n{shown(found)}")
    return 1 if found else 0


def main(given: Sequence[str] | None = None) -> int:
    """Make the environment, run the tests and print what breaks."""
    parser = argparse.ArgumentParser(description="Run the tests against the newest versions.")
    parser.add_argument("--constraint", type=Path, help="pip's file of what is not to be newer")
    file = parser.parse_args(given).constraint
    if file is not None and not file.is_file():
        print(f"--constraint {file}: is no file; give one with lines like torch<2.14")
        return 2
    try:
        return _look([] if file is None else ["--constraint", str(file.resolve())])
    except subprocess.CalledProcessError as error:
        words = " ".join(map(str, error.cmd))
        print(f"\n{words}\nended with {error.returncode}; nothing is known of newer versions")
        return 2


def _look(constraints: Sequence[str]) -> int:
    pinned, newest = _prepare(constraints)
    for name, version in newest.items():
        print(f"{name}: pinned {pinned[name]}, newest {version}", flush=True)
    if newest == pinned:
        print("none of them has a newer version; nothing is run")
        return 0
    broken: list[Breakage] = []
    changed = {name: tests for name, tests in ADAPTERS.items() if newest[name] != pinned[name]}
    for name, tests in changed.items():
        found = _run(name, ["-m", "not long", *tests])
        print(f"\nwritten against {name}:\n{shown(found)}", flush=True)
        broken += found
    found = _run("fast", ["-m", "not slow and not long"])
    print(f"\nall fast tests:\n{shown(found)}", flush=True)
    return _judge([*broken, *found])


if __name__ == "__main__":
    sys.exit(main())
