"""Trains and evaluates what docs/results/learning.md says of real motion, and keeps the figures.

    python tests/benchmarks/measure_learning.py lifting plain      # cases of learning_cases.yaml
    python tests/benchmarks/measure_learning.py plain --test       # and open the test split, once

Every seed of a case is trained with one thread in a home of its own, so that the processor seconds
hold its stages too, and evaluated on every validation frame. What is there already is not done
again. The figures of a case go to a file in tests/benchmarks/results/learning, of which `make
results` makes the tables. The stores are those that search_spaces/selfpose/README.md imports.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # it is run as a program

from support.learning_cases import Case, keep_figures, read_cases, read_figures

from posetune.provenance import collect

ROOT = Path(__file__).parents[2]
WORK = ROOT / "runs" / "learning"
EPOCH_METRICS = ("val/p_mpjpe_mm", "val/error_2d_px", "val/lifted_true_mm")
DIGITS = 3
_FAILED = 1
"""The exit code of `posetune train` where the trial failed."""
_ERROR_2D = "2D error (px, not aligned)"


def main() -> None:
    """Measure the cases that the command line names."""
    cases = read_cases()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("cases", nargs="+", choices=sorted(cases))
    parser.add_argument("--test", action="store_true", help="evaluate on the test split too")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these")
    given = parser.parse_args()
    for name in given.cases:
        for seed in cases[name].seeds if given.seeds is None else given.seeds:
            measure(name, cases[name], seed, splits=("val", "test") if given.test else ("val",))


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Leaves the module's text as it is."""


def measure(name: str, case: Case, seed: int, *, splits: tuple[str, ...]) -> None:
    """Train a seed of a case and evaluate it, unless the figures are there."""
    home = WORK / f"{name}-{seed}"
    found = read_figures(name).get(str(seed))
    if found is None:
        found = keep_figures(name, seed, _train(case, seed, home=home))
    for split in splits:
        if split not in found and not found["failed"]:
            words = ("evaluate", (home / "model.txt").read_text(), "--split", split)
            folders = ("--store", case.store, "--out", home / split, "--home", home)
            evaluated = json.loads(_posetune(*words, *folders, "--json").stdout)
            kept = {part: evaluated[part] for part in ("metrics", "baselines")}
            kept["wrists_px"] = _wrists(home / split / "joints.csv")
            found = keep_figures(name, seed, {**found, split: _rounded(kept)})
        print(name, seed, split, _said(found, split), flush=True)


def _train(case: Case, seed: int, *, home: Path) -> dict[str, Any]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = case.command(seed)
    done = _posetune("train", *words, "--home", home, "--fresh", "--json", check=False)
    if done.returncode not in (0, _FAILED):
        sys.exit(f"posetune train {' '.join(words)} ends with {done.returncode}:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    trained = json.loads(done.stdout) if done.returncode == 0 else {"epochs": [], "model": ""}
    home.mkdir(parents=True, exist_ok=True)
    (home / "model.txt").write_text(trained["model"])
    epochs = [{m: e[m] for m in EPOCH_METRICS if m in e} for e in trained["epochs"]]
    where = collect()
    return {
        "command": " ".join(["posetune train", *words]),
        "processor_s": round(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1
        ),
        "epochs": _rounded(epochs),
        "failed": "" if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2],
        "load": round(os.getloadavg()[0], 1),
        **{fact: where[fact] for fact in ("commit", "dirty", "processor", "usable_cores")},
    }


def _wrists(file: Path) -> dict[str, dict[str, float]]:
    """Return the 2D error of both wrists, px, with its interval, of a table of joints.

    Empty for a model that is given the true 2D poses.
    """
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["joint"].endswith("wrist") and _ERROR_2D in row:
            found.setdefault(row["joint"], {})[row["statistic"]] = float(row[_ERROR_2D])
    return found


def _posetune(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "posetune.cli", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=None if check else subprocess.PIPE,
        text=True,
        check=check,
    )


def _rounded(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _rounded(value) for key, value in found.items()}
    if isinstance(found, list):
        return [_rounded(value) for value in found]
    return round(found, DIGITS) if isinstance(found, float) else found


def _said(found: dict[str, Any], split: str) -> str:
    if found["failed"]:
        return f"failed: {found['failed']}"
    error = found[split]["metrics"][f"{split}/p_mpjpe_frame_mm"]
    return f"{error['mean']:.1f} mm ({error['low']:.1f} to {error['high']:.1f}), frame mean"


if __name__ == "__main__":
    main()
