"""Says what the tests took, by run and by module, from their JUnit reports.

    python tests/support/times_table.py runs/tests/*.xml      # what `make test-times` does

The figures of each run go to runs/bench/tests.json with machine and commit, and the next `make
results` puts them into docs/results/tests.md.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from posetune.provenance import collect

__all__ = ["Module", "read_run", "table"]

PROPERTY = "processor_s"
OUT = Path(__file__).parents[2] / "runs" / "bench" / "tests.json"


@dataclass
class Module:
    """What the tests of one module took together."""

    tests: int = 0
    wall_s: float = 0.0
    processor_s: float = 0.0


def read_run(file: Path) -> dict[str, Any]:
    """Return how many tests of a run passed or not, its seconds by the clock, and its modules."""
    suite = next(ElementTree.parse(file).iter("testsuite"))
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    modules: dict[str, Module] = defaultdict(Module)
    for case in suite.iter("testcase"):
        if case.find("skipped") is not None:
            continue
        module = modules[case.get("classname", "").removeprefix("tests.")]
        module.tests += 1
        module.wall_s += float(case.get("time", 0))
        for found in case.iter("property"):
            if found.get("name") == PROPERTY:
                module.processor_s += float(found.get("value", 0))
    return {
        "tests": counts["tests"] - counts["skipped"],
        "skipped": counts["skipped"],
        "failed": counts["failures"] + counts["errors"],
        "clock_s": float(suite.get("time", 0)),
        "modules": {name: asdict(module) for name, module in modules.items()},
    }


def table(modules: dict[str, dict[str, float]], *, most: int | None = None) -> str:
    """Return a Markdown table of modules, the slowest first, at most so many, and of all."""
    lines = ["| module | tests | seconds by the clock | of the processor |", "|---|---|---|---|"]
    slowest = sorted(modules.items(), key=lambda item: -item[1]["wall_s"])
    lines += [_line(name, [module]) for name, module in slowest[:most]]
    lines.append(_line("all", list(modules.values())))
    return "\n".join(lines)


def _line(name: str, modules: Sequence[dict[str, float]]) -> str:
    tests, wall_s, processor_s = (
        sum(module[part] for module in modules) for part in ("tests", "wall_s", "processor_s")
    )
    return f"| {name} | {tests:.0f} | {wall_s:.1f} | {processor_s:.1f} |"


def main(files: Iterable[Path]) -> None:
    """Write the figures of these reports, and print their modules."""
    runs = {file.stem: read_run(file) for file in files}
    where = collect()
    facts = {name: where[name] for name in ("commit", "dirty", "processor", "usable_cores")}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({**facts, "runs": runs}, indent=1) + "\n", encoding="utf-8")
    for name, run in runs.items():
        print(f"make {name}: {run['tests']} tests, {run['clock_s']:.0f} s by the clock\n")
        print(table(run["modules"]) + "\n")


if __name__ == "__main__":
    main(map(Path, sys.argv[1:]))
