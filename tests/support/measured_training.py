"""Trains a seed of a case and evaluates it, and keeps the figures."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.learning_cases import Case, keep_figures, read_figures
from support.measured import WORK, measured_at, rounded, run_posetune, split_figures

__all__ = ["measure_training"]

_EPOCH_METRICS = ("val/p_mpjpe_mm", "val/error_2d_px", "val/lifted_true_mm")
_FAILED = 1
"""The exit code of `posetune train` where the trial failed."""


def measure_training(name: str, case: Case, seed: int, *, test: bool) -> None:
    """Train a seed of a case and evaluate it, unless the figures are there."""
    folder = WORK / f"{name}-{seed}"
    home = WORK / case.shares if case.shares else folder
    found = read_figures(name).get(str(seed))
    if found is None:
        found = keep_figures(name, seed, _train(name, case, seed, home=home, folder=folder))
    for split in ("val", "test") if test else ("val",):
        if split not in found and not found["failed"]:
            words = ("evaluate", (folder / "model.txt").read_text(), "--split", split)
            folders = ("--store", case.store, "--out", folder / split, "--home", home)
            evaluated = json.loads(run_posetune(*words, *folders, "--json").stdout)
            figures = split_figures(evaluated, folder / split)
            found = keep_figures(name, seed, {**found, split: figures})
        print(name, seed, split, _said(found, split), flush=True)


def _train(name: str, case: Case, seed: int, *, home: Path, folder: Path) -> dict[str, Any]:
    own_name: list[str] = []
    if case.shares:
        own_name = ["--name", f"{name}-{seed}"]
        _run_train([*case.stages_command(), "--name", "stages"], home)
    words = case.command(seed)
    before = _processor_s()
    done = _run_train([*words, *own_name], home)
    spent = _processor_s() - before
    trained: dict[str, Any] = {"epochs": [], "model": ""}
    if done.returncode == 0:
        trained = json.loads(done.stdout)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.txt").write_text(trained["model"])
    epochs = [{m: e[m] for m in _EPOCH_METRICS if m in e} for e in trained["epochs"]]
    return {
        "command": " ".join(["posetune train", *words]),
        "processor_s": round(spent, 1),
        "holds_stages": case.shares is None,
        "epochs": rounded(epochs),
        "failed": "" if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2],
        **measured_at(),
    }


def _run_train(words: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """Train; a trial may fail, any other fault ends the measurement."""
    done = run_posetune("train", *words, "--home", home, "--fresh", "--json", check=False)
    if done.returncode not in (0, _FAILED):
        sys.exit(f"posetune train {' '.join(words)} ends with {done.returncode}:\n{done.stderr}")
    return done


def _processor_s() -> float:
    """Return the processor seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _said(found: dict[str, Any], split: str) -> str:
    if found["failed"]:
        return f"failed: {found['failed']}"
    error = found[split]["metrics"][f"{split}/p_mpjpe_frame_mm"]
    return f"{error['mean']:.1f} mm ({error['low']:.1f} to {error['high']:.1f}), frame mean"
