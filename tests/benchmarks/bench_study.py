"""A study of 10,000 trials: what opening, asking and reporting cost, and the driver's memory.

The study is made by the code that makes every study; only TPE's draws are replaced by random ones
while it is made (its asks alone would take half an hour), and SQLite does not wait for the disk.
Measured is on the database as a real sweep opens it, with TPE.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.samplers import RandomSampler
from rich.console import Console
from rich.table import Table
from support.simulated_driver import fill, open_unsynced
from support.simulated_driver import simulated_start as sweep_start

from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.tables.database import Database, open_database

TRIALS = 10_000
FEW = 100
MEASURED = 40
"""Trials of which asks and reports are measured, on each study."""

SEARCH = {
    **{f"loss_weights.w{i}": {"float": [0.01, 10], "log": True} for i in range(5)},
    "depth": {"int": [2, 16], "step": 2},
}


def wanted() -> SweepStart:
    made = sweep_start(
        search={"x": {"float": [0.01, 10], "log": True}, **SEARCH},
        pruner={"max_epochs": 27},
        budget={"trials": 2 * TRIALS},
    )
    defaults = {name: 1.0 for name in made.spec.search} | {"depth": 8}
    return SweepStart(**{**vars(made), "defaults": defaults})


def megabytes(key: str) -> float:
    """A figure of this process: VmRSS (now) or VmHWM (at most so far)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def make(folder: Path) -> tuple[dict[int, Path], float]:
    """Make the study; return its file with few and with all trials, and memory per trial in KB."""
    run = SweepRun(open_unsynced(folder / "making.db"), wanted())
    run._memory._sampler = lambda seed: RandomSampler(seed=seed)
    generator = random.Random(0)
    files, resident = {}, {}
    for trials in (FEW, TRIALS):
        fill(run, trials, generator)
        resident[trials] = megabytes("VmRSS")
        files[trials] = folder / f"{trials}.db"
        snapshot(folder / "making.db", files[trials])
    run.lease.release()
    return files, 1024 * (resident[TRIALS] - resident[FEW]) / (TRIALS - FEW)


def snapshot(file: Path, copy: Path) -> None:
    """Copy a study that is in use, as if its driver had died."""
    with (
        contextlib.closing(sqlite3.connect(file)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
        target.execute("DELETE FROM lease")
        target.commit()


OPEN = """
import json, sys, time
sys.path[:0] = {folders!r}
from bench_study import *
started = time.perf_counter()
database = open_database({address!r})
checked = time.perf_counter()
run = SweepRun(database, wanted())
ended = time.perf_counter()
run.lease.release()
print(json.dumps([checked - started, ended - started, megabytes("VmHWM")]))
"""


def open_in_a_new_process(file: Path) -> list[float]:
    """Seconds to the checked database, seconds to the opened sweep, and peak memory in MB."""
    here = Path(__file__).parent
    code = OPEN.format(folders=[str(here), str(here.parent)], address=f"sqlite:///{file}")
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return list(json.loads(out.stdout))


class Costs:
    """Seconds of each ask and of each report of new trials on one study."""

    def __init__(self, database: Database) -> None:
        self.run = SweepRun(database, wanted())
        self.asks: list[float] = []
        self.reports: list[float] = []

    def measure(self) -> None:
        """Run one trial of three epochs."""
        started = time.perf_counter()
        trial = self.run.next_trial()
        self.asks.append(time.perf_counter() - started)
        assert trial is not None
        attempt = self.run.begin_attempt(trial.number)
        for epoch in (1, 2, 3):
            started = time.perf_counter()
            self.run.report(
                trial.number,
                attempt.number,
                epoch=epoch,
                metrics={f"m{i}": 1.0 for i in range(29)} | {"loss": -1000.0},
                seconds=1.0,
                checkpoint=None,
            )
            self.reports.append(time.perf_counter() - started)
        self.run.fail(trial.number, "measured")


def compare(files: dict[int, Path], *, synced: bool) -> dict[int, Costs]:
    """Measure the studies in turns, so that a machine busy for a while is so for both."""
    costs = {}
    for trials, file in files.items():
        copy = file.with_suffix(f".{synced}.db")
        shutil.copy(file, copy)
        costs[trials] = Costs(open_database(f"sqlite:///{copy}") if synced else open_unsynced(copy))
    for _ in range(MEASURED):
        for cost in costs.values():
            cost.measure()
    for cost in costs.values():
        cost.run.lease.release()
    return costs


@pytest.mark.timeout(1800)
def test_a_study_of_ten_thousand_trials(tmp_path: Path, repository: Path) -> None:
    started = time.perf_counter()
    files, kilobytes = make(tmp_path)
    made = time.perf_counter() - started
    size = files[TRIALS].stat().st_size / 1e6
    checked, opened, peak = open_in_a_new_process(files[TRIALS])
    costs = compare(files, synced=True)
    asks = costs[TRIALS].asks
    report_ms = {n: 1000 * statistics.median(cost.reports) for n, cost in costs.items()}
    unsynced = {
        n: statistics.median(cost.reports) for n, cost in compare(files, synced=False).items()
    }
    rows: list[tuple[str, float, float | None]] = [
        (f"making it, {size:.0f} MB, s", made, None),
        ("opened for resume, s", opened, 10.0),
        ("of that the check of the database's pages, s", checked, 1.0),
        ("memory at most, opening it, MB", peak, 1024.0),
        ("the driver's memory per finished trial, KB", kilobytes, 20.0),
        ("one ask of TPE, the slowest, s", max(asks), 1.5),
        ("one ask of TPE, median, s", statistics.median(asks), 1.5),
        (f"one report at {FEW} trials, median, ms", report_ms[FEW], None),
        (f"one report at {TRIALS} trials, median, ms", report_ms[TRIALS], None),
        ("their ratio", report_ms[TRIALS] / report_ms[FEW], 2.0),
        ("their ratio without the disk", unsynced[TRIALS] / unsynced[FEW], 2.0),
    ]
    publish(f"A study of {TRIALS} trials", rows, repository / "runs" / "bench" / "study.json")
    assert all(aim is None or figure <= aim for _, figure, aim in rows)


def publish(title: str, rows: list[tuple[str, float, float | None]], out: Path) -> None:
    """Print what was measured beside its aim, and write it as JSON."""
    table = Table("what", "figure", "aim at most", title=title)
    for what, figure, aim in rows:
        table.add_row(what, f"{figure:.3g}", "-" if aim is None else f"{aim:g}")
    Console(width=100).print(table)
    content: list[dict[str, Any]] = [
        {"what": what, "figure": figure, "aim": aim} for what, figure, aim in rows
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=1), encoding="utf-8")
