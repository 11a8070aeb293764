"""Makes a table of the tests' times by module from JUnit reports.

python tests/support/times_table.py runs/tests/*.xml
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

PROPERTY = "processor_s"


@dataclass
class Module:
    """What the tests of one module took together."""

    tests: int = 0
    wall_s: float = 0.0
    processor_s: float = 0.0


def read_times(files: Iterable[Path]) -> dict[str, Module]:
    """Return the times of all tests in these reports, by module."""
    modules: dict[str, Module] = defaultdict(Module)
    for file in files:
        for case in ElementTree.parse(file).iter("testcase"):
            if case.find("skipped") is not None:
                continue
            module = modules[case.get("classname", "").removeprefix("tests.")]
            module.tests += 1
            module.wall_s += float(case.get("time", 0))
            for found in case.iter("property"):
                if found.get("name") == PROPERTY:
                    module.processor_s += float(found.get("value", 0))
    return dict(modules)


def table(modules: dict[str, Module]) -> str:
    """Return a Markdown table, the slowest module first."""
    lines = ["| module | tests | seconds by the clock | of the processor |", "|---|---|---|---|"]
    for name, module in sorted(modules.items(), key=lambda item: -item[1].wall_s):
        lines.append(
            f"| {name} | {module.tests} | {module.wall_s:.1f} | {module.processor_s:.1f} |"
        )
    total = Module(
        sum(m.tests for m in modules.values()),
        sum(m.wall_s for m in modules.values()),
        sum(m.processor_s for m in modules.values()),
    )
    lines.append(f"| all | {total.tests} | {total.wall_s:.1f} | {total.processor_s:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(read_times(map(Path, sys.argv[1:]))))
