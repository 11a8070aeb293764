"""How many epochs searches take until they are within 1 mm of the best, replayed.

    python tests/benchmarks/replay_searches.py            # what is missing; some hours of one core

Every search runs through the real study, sampler, pruner and events (`support.recording`); its
trainings are looked up (`support.curves`) or made up (`support.made_curves`). What it takes is
counted in epochs, so it does not depend on the machine. Results are kept row by row in
results/search.json, with the epochs of every seed.

The constants of gp and thaw were frozen before the seeds from 100 on were run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from support.curves import Curves, Search, epochs_until, read_curves
from support.made_curves import made_curves
from support.search_table import BEFORE, RANDOM, search_row, whole_row
from support.simulated_driver import open_unsynced

from posetune.provenance import collect
from posetune.study.driving import sweep_start

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "search.json"
RECORDED = {"lifting": "lifting.json", "lifting again": "lifting_again.json"}
"""Files of the recorded worlds: the same space, trained under other seeds."""
WITHIN_MM = 1.0
WHOLE = 64
"""Trials of a budget that is spent to its end, as in lifting_grid.yaml."""
CHUNK = 10
"""Seeds after which what was measured is kept."""
LATE: dict[str, Any] = {"grace_epochs": 6, "reduction_factor": 2}
FULL: dict[str, Any] = {"name": "none"}


class Method(NamedTuple):
    """How a search goes about it."""

    sampler: dict[str, Any]
    pruner: dict[str, Any]
    semantics: int = 3
    """The rules that it is begun with; under 2 points were drawn again."""


METHODS = {
    BEFORE: Method({"name": "random"}, FULL, 2),
    RANDOM: Method({"name": "random"}, FULL),
    "TPE + ASHA 6, 2, as begun before": Method({"name": "tpe"}, LATE, 2),
    "TPE + ASHA 6, 2": Method({"name": "tpe"}, LATE),
    "GP + ASHA 6, 2": Method({"name": "gp"}, LATE),
    "thaw 3, 6, 12, 24": Method({}, {"name": "thaw"}),
}


class Row(NamedTuple):
    """What is measured: a method in a world."""

    world: str
    method: str
    slots: int
    first: int
    seeds: int
    trials: int = 128
    whole: bool = False
    """Whether the budget is spent to its end, whatever was found before."""

    @property
    def key(self) -> str:
        """Its name among the results."""
        key = f"{self.world}/{self.method}/{self.slots} slots/{self.first}+{self.seeds}"
        return f"{key}/{self.trials} trials" if self.whole else key


def rows() -> list[Row]:
    """Return everything that is measured, what matters most first."""
    thaw, gp, tpe, before = list(reversed(METHODS))[:4]
    found = [Row("lifting", BEFORE, 2, 0, 300), Row("lifting", RANDOM, 2, 0, 300)]
    found += [Row("lifting", name, 2, 100, 100) for name in (thaw, gp, tpe)]
    found += [Row("lifting", BEFORE, 8, 0, 100), Row("lifting", RANDOM, 8, 0, 100)]
    found += [Row("lifting", name, 8, 100, 100) for name in (thaw, gp, tpe)]
    if curves_file("lifting again").exists():
        found += [Row("lifting again", name, 2, 0, 300) for name in (BEFORE, RANDOM)]
        found += [Row("lifting again", name, 2, 100, 100) for name in (thaw, gp, tpe)]
        found += [Row("lifting again", name, 8, 0, 100) for name in (BEFORE, RANDOM)]
        found += [Row("lifting again", name, 8, 100, 100) for name in (thaw, gp, tpe)]
    for world in ("strong", "mild"):
        found += [Row(world, RANDOM, 2, 0, 50, 243)]
        found += [Row(world, name, 2, 100, 30, 243) for name in (thaw, gp, tpe)]
    found += [Row("lifting", before, 2, 100, 100), Row("lifting", before, 8, 100, 50)]
    for world in RECORDED:
        for slots in (2, 8):
            found += [
                Row(world, name, slots, 100, 50, WHOLE, whole=True)
                for name in (RANDOM, thaw, gp, tpe)
            ]
    return found


def curves_file(world: str) -> Path:
    """Return where the curves of a recorded world are kept."""
    return HERE / "curves" / RECORDED[world]


def curves_of(world: str, seed: int) -> Curves:
    """Return the curves of a world; one that is made up has five instances."""
    if world in RECORDED:
        return read_curves(curves_file(world))
    return made_curves(world, seed % 5)


def search(row: Row, seed: int) -> Search:
    """Replay one search."""
    method, curves = METHODS[row.method], curves_of(row.world, seed)
    sweep_start.SEMANTICS = method.semantics
    with tempfile.TemporaryDirectory() as folder:
        database = open_unsynced(Path(folder) / "study.db")
        try:
            return epochs_until(
                database,
                curves,
                -math.inf if row.whole else curves.best + WITHIN_MM,
                seed=seed,
                slots=row.slots,
                sampler=dict(method.sampler),
                pruner=method.pruner,
                budget={"trials": row.trials},
            )
        finally:
            database.close()


def recorded() -> dict[str, Any]:
    """Return what was measured so far, at any time."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def keep(row: Row, found: list[Search]) -> None:
    """Put further seeds to a row."""
    where = collect()
    before = recorded().get(row.key, {"epochs": [], "begun": [], "above": []})
    result = {
        **row._asdict(),
        "commit": where["commit"],
        "dirty": where["dirty"],
        "epochs": before["epochs"]
        + [one.epochs if one.reached or row.whole else None for one in found],
        "begun": before["begun"] + [one.trials for one in found],
    }
    if row.whole:
        best = curves_of(row.world, row.first).best
        result["above"] = before["above"] + [round(one.best - best, 3) for one in found]
    partial = RESULTS.with_name(".search.json.partial")
    partial.write_text(json.dumps({**recorded(), row.key: result}, sort_keys=True, indent=0) + "\n")
    partial.replace(RESULTS)


def measure(processes: int) -> None:
    """Run the rows that are missing, one after the other."""
    with ProcessPoolExecutor(processes) as pool:
        for row in rows():
            while (done := len(recorded().get(row.key, {}).get("epochs", ()))) < row.seeds:
                seeds = range(row.first + done, row.first + min(done + CHUNK, row.seeds))
                keep(row, list(pool.map(search, [row] * len(seeds), seeds)))
            made = whole_row if row.whole else search_row
            print(made(recorded()[row.key], recorded()), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    measure(given.processes)
