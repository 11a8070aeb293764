"""Trains and evaluates what docs/results/learning.md says, and keeps the figures.

    python tests/benchmarks/measure_learning.py lifting plain      # cases of learning_cases.yaml
    python tests/benchmarks/measure_learning.py plain --test       # and open the test split, once
    python tests/benchmarks/measure_learning.py pieces             # all cases of one table

A training has one thread. Every seed of a case has a home of its own, so that the processor seconds
hold its stages too, unless the case shares a home: there the stages are trained first, and not
counted. A sweep is run as a person would run it, and its best trial is promoted. What is there
already is not done again. The figures of a case go to a file in tests/benchmarks/results/learning,
of which `make results` makes the tables. The stores are those that search_spaces/selfpose/README.md
and the top of each sweep file import.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # it is run as a program

from support.learning_cases import Case, read_cases
from support.measured_sweep import measure_ablation, measure_sweep
from support.measured_training import measure_training

_MEASURES = {"training": measure_training, "sweep": measure_sweep, "ablation": measure_ablation}


def main() -> None:
    """Measure the cases that the command line names."""
    cases = read_cases()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    tables = {case.level for case in cases.values()}
    names = sorted({*cases, *tables})
    parser.add_argument("cases", nargs="+", metavar="CASE", choices=names, help=", ".join(names))
    parser.add_argument("--test", action="store_true", help="evaluate on the test split too")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these")
    given = parser.parse_args()
    for name in _expanded(given.cases, cases):
        measure = _MEASURES[cases[name].kind]
        for seed in cases[name].seeds if given.seeds is None else given.seeds:
            measure(name, cases[name], seed, test=given.test)


def _expanded(names: list[str], cases: dict[str, Case]) -> list[str]:
    """Return the names of cases, where a name may be that of a table instead."""
    found: list[str] = []
    for name in names:
        of_table = [other for other, case in cases.items() if case.level == name]
        found += [name] if name in cases else of_table
    return found


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Leaves the module's text as it is."""


if __name__ == "__main__":
    main()
