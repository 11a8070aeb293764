"""Runs posetune to measure how it learns, and takes figures from what it prints and writes."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.learning_cases import ROOT

from posetune.provenance import collect

__all__ = ["WORK", "measured_at", "rounded", "run_posetune", "split_figures"]

WORK = ROOT / "runs" / "learning"
"""Where the homes of what is measured lie."""
_DIGITS = 3
_WRIST_COLUMNS = {
    "wrists_px": "2D error (px, not aligned)",
    "wrists_gain_px": "mean 2D pose minus model (px)",
}


def run_posetune(
    *words: object, threads: int | None = 1, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command of posetune from the root of the repository.

    Args:
        words: the words behind `posetune`.
        threads: how many threads it computes with; None leaves that to the command.
        check: raise if it fails. Otherwise its errors are in the result, not on the screen.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    others = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, "-m", "posetune.cli", *map(str, words)],
        cwd=ROOT,
        env=others if threads is None else {**others, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        stderr=None if check else subprocess.PIPE,
        text=True,
        check=check,
    )


def split_figures(evaluated: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return metrics and baselines of a split, and the errors of the wrists.

    Args:
        evaluated: what `posetune evaluate --json` prints, or `metrics.json` holds.
        folder: where the evaluation wrote its tables.
    """
    kept = {part: evaluated[part] for part in ("metrics", "baselines")}
    figures: dict[str, Any] = rounded({**kept, **_wrists(folder / "joints.csv")})
    return figures


def measured_at() -> dict[str, Any]:
    """Return commit, machine and its load now."""
    where = collect()
    facts = {fact: where[fact] for fact in ("commit", "dirty", "processor", "usable_cores")}
    return {"load": round(os.getloadavg()[0], 1), **facts}


def rounded(found: Any) -> Any:
    """Return JSON values with their numbers rounded."""
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    if isinstance(found, list):
        return [rounded(value) for value in found]
    return round(found, _DIGITS) if isinstance(found, float) else found


def _wrists(file: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return the 2D error of each wrist, px, and by how much the mean 2D pose is farther off.

    Both have intervals. There are no wrists for a model that is given the true 2D poses.
    """
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["joint"].endswith("wrist")]
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in _WRIST_COLUMNS}
    for name, column in _WRIST_COLUMNS.items():
        for row in rows:
            if column in row:
                found[name].setdefault(row["joint"], {})[row["statistic"]] = float(row[column])
    return found
