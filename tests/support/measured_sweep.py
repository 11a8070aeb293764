"""Runs a seed of a sweep, promotes its best trial or keeps the value of each, as figures."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from support.learning_cases import Case, keep_figures, read_figures
from support.measured import WORK, measured_at, rounded, run_posetune, split_figures

__all__ = ["measure_ablation", "measure_sweep"]

_REFUSED = 3
"""The exit code of `posetune promote` where the gate refused."""
_OVER_ALL = "all activities"


def measure_sweep(name: str, case: Case, seed: int, *, test: bool) -> None:
    """Run a seed of a sweep and promote its best trial, unless the figures are there.

    The alias `candidate` looks at the validation split only. With `test` it is `champion`, whose
    gate opens the test split, once for each seed.
    """
    home = WORK / f"{name}-{seed}"
    found = read_figures(name).get(str(seed))
    if found is None:
        swept, figures = _sweep(name, case, seed, home=home)
        best = rounded({part: swept["best"][part] for part in ("number", "value")})
        found = keep_figures(name, seed, {"best": best, **figures})
    if "val" not in found or (test and "test" not in found):
        found = keep_figures(name, seed, {**found, **_promote(name, case, home=home, test=test)})
    print(name, seed, f"{found['clock_s']:.0f} s by the clock,", _said(found), flush=True)


def measure_ablation(name: str, case: Case, seed: int, *, test: bool) -> None:
    """Run a seed of a sweep and keep the value of each trial, unless the figures are there.

    The test split is not looked at.
    """
    found = read_figures(name).get(str(seed))
    if found is None:
        swept, figures = _sweep(name, case, seed, home=WORK / f"{name}-{seed}")
        trials = [{"params": one["params"], "value": one["value"]} for one in swept["trials"]]
        found = keep_figures(name, seed, {"trials": rounded(trials), **figures})
    print(name, seed, f"{found['clock_s']:.0f} s, {len(found['trials'])} trials", flush=True)


def _sweep(
    name: str, case: Case, seed: int, *, home: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a sweep; return what it printed, and the figures that every kind of table shows."""
    shutil.rmtree(home, ignore_errors=True)  # a sweep that was broken off has no time by the clock
    home.mkdir(parents=True)
    file = home / case.file
    file.write_text(case.sweep_text(seed), encoding="utf-8")
    begun = time.monotonic()
    words = (file, "--name", name, "--store", case.store, "--home", home, "--json")
    # The file says how many cores a stage and a trial have, so the threads are left to it.
    done = run_posetune("sweep", *words, threads=None)
    clock_s = time.monotonic() - begun
    swept = json.loads(done.stdout)
    return swept, {
        "command": case.sweep_command(seed),
        "clock_s": round(clock_s, 1),
        "trained_s": swept["used"]["trained_s"],
        "val_baselines": rounded(swept["baselines"]),
        **measured_at(),
    }


def _promote(name: str, case: Case, *, home: Path, test: bool) -> dict[str, Any]:
    """Return what promotion measured of the best trial on validation and, if asked, on test."""
    out = home / "test"
    asked = ("--alias", "champion", "--out", out) if test else ("--alias", "candidate")
    words = (name, "--model", name, "--store", case.store, "--home", home, "--json")
    done = run_posetune("promote", *words, *asked, threads=None, check=False)
    if done.returncode not in (0, _REFUSED):
        sys.exit(f"posetune promote {name} ends with {done.returncode}:\n{done.stderr}")
    promoted = json.loads(done.stdout)
    picked = ("trial", "epoch", "value", "whole_value")
    found = {"val": rounded({part: promoted[part] for part in picked})}
    if test:
        figures = split_figures(json.loads((out / "metrics.json").read_text()), out)
        gains = {
            one["other"]: {"mean": one["gain"], "low": one["low"], "high": one["high"]}
            for one in promoted["verdict"]["comparisons"]
            if one["over"] == _OVER_ALL
        }
        decided = {part: promoted[part] for part in ("gate", "test_looks")}
        found["test"] = {**figures, "gains": rounded(gains), **decided}
    return found


def _said(found: dict[str, Any]) -> str:
    whole = f"{found['val']['whole_value']:.1f} mm on the validation split"
    if "test" not in found:
        return whole
    return f"{whole}, {found['test']['metrics']['test/p_mpjpe_mm']['mean']:.1f} on test"
