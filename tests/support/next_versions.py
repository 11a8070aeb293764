"""Runs the tests against the newest Ray, Optuna, MLflow and torch, and says what breaks and where.

python tests/support/next_versions.py    (make test-next)

It makes a virtual environment of its own, first with the pinned versions, then with the newest that
pip finds for the four, whatever our own ranges say. The tests of what is written against each of
them come first, then all fast tests. It ends with 1 where something breaks.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

__all__ = ["Breakage", "read_breakages", "shown"]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "runs" / "next"
PYTHON = FOLDER / "venv" / "bin" / "python"

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


def _prepare() -> tuple[dict[str, str], dict[str, str]]:
    """Make the environment; return the versions that are pinned and those that are newest."""
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PYTHON.parents[1])], check=True)
        _pip("--upgrade", "pip>=25.1")
    _pip("--constraint", "cluster/constraints.txt", "--editable", ".", "--group", "dev")
    pinned = _versions()
    _pip("--upgrade", *(ASKED.get(name, name) for name in ADAPTERS))
    return pinned, _versions()


def _run(title: str, words: Sequence[str]) -> list[Breakage]:
    report = FOLDER / f"{title}.xml"
    report.unlink(missing_ok=True)
    command = [str(PYTHON), "-m", "pytest", "-q", "-n", "3", f"--junitxml={report}", *words]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
    if not report.exists():
        return [Breakage(title, "pytest itself does not start; run it by hand", "")]
    return read_breakages(report)


def main() -> int:
    """Make the environment, run the tests and print what breaks."""
    pinned, newest = _prepare()
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
    return 1 if broken or found else 0


if __name__ == "__main__":
    sys.exit(main())
