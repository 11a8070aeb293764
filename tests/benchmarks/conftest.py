"""One table of everything that was measured beside a rival, printed and written as JSON.

Each row is measured in one run, ours and the rival taking turns, as the median of several rounds.
What computes on one thread is measured in processor time, so that other work changes little.
A row that was not run keeps its figures of another time, with their own commit; one that never was
run says so.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from posetune.provenance import collect


@dataclass(frozen=True)
class Row:
    """What is measured, beside what, and how many times faster ours is meant to be."""

    what: str
    rival: str
    aim: float
    why: str = ""
    """Said where the aim is missed and the reason is known."""


ROWS = {
    "step": Row(
        "training step, quickstart size",
        "the plain twin",
        3.0,
        "ours computes 5.0 GFLOP of convolutions and matrix products, the twin 5.1: 58 ms as "
        "large matrices, so little more than twice as fast at most",
    ),
    "renderer": Row("renderer, forward and backward, B 96, S 128", "plain autograd", 10.0),
    "renderer-small": Row("the same, B 32, S 32", "plain autograd", 10.0),
    "flow": Row("flow, likelihood and gradient, depth 8, batch 256", "FrEIA", 1.3),
    "procrustes-svd": Row("Procrustes, 100,000 poses", "batched numpy SVD, float64", 2.0),
    "procrustes-loop": Row("Procrustes, 100,000 poses", "loop over scipy, scaled up", 13.0),
    "feed-jpeg": Row(
        "96 random images of 128 px, warm",
        "torch DataLoader over JPEG",
        10.0,
        "reading takes 0.5 ms; the rest is 19 MB of floats into memory that is fresh",
    ),
    "feed-h5": Row("96 random images of 128 px, warm", "h5py row by row", 3.0),
    "feed-cold": Row("96 random images of 128 px, cold", "torch DataLoader over JPEG", 1.0),
    "rendering": Row(
        "rendering the mocap store, 128 px, rooms",
        "one process",
        1.8,
        "each process starts for itself and paints the 40 views of the rooms for itself",
    ),
    "launch": Row("a trial's launch after the first", "Tune, a process per trial", 20.0),
    "report": Row("a report of 30 metrics, as the loop sees it", "MLflowLoggerCallback", 50.0),
    "first-report": Row(
        "from the command to the first report",
        "a plain Tune script",
        1.0,
        "before Ray starts, the file and the store are checked and the study is opened",
    ),
}


@dataclass(frozen=True)
class Figures:
    """Seconds of ours and of the rival's."""

    ours_s: float
    rival_s: float
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.rival_s / self.ours_s


class Measured:
    """The figures of this run, before those that the file has of others.

    Args:
        out: the file.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.figures: dict[str, Figures] = {}

    def add(self, key: str, ours_s: float, rival_s: float, note: str = "") -> None:
        """Add the row `key` of `ROWS`."""
        assert key in ROWS
        self.figures[key] = Figures(ours_s, rival_s, note)

    def write(self, facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Write the rows as JSON, each with facts about its run; return what was ever measured."""
        kept = {}
        if self.out.exists():
            before = json.loads(self.out.read_text())["rows"]
            kept = {row["key"]: row["measured"] for row in before if "key" in row}
        for key, found in self.figures.items():
            kept[key] = {**asdict(found), "ratio": found.ratio, **facts}
        rows = [{"key": k, **asdict(row), "measured": kept.get(k)} for k, row in ROWS.items()]
        self.out.parent.mkdir(parents=True, exist_ok=True)
        partial = self.out.with_name(f".{self.out.name}.partial")
        partial.write_text(json.dumps({"rows": rows}, indent=1))
        partial.replace(self.out)
        return {row["key"]: row["measured"] for row in rows if row["measured"]}


def table_of(measured: dict[str, dict[str, Any]]) -> Table:
    """Return every row, with its note, and with the reason where it misses its aim."""
    table = Table("what", "ours", "rival", "", "ratio", "aim", "machine")
    for key, row in ROWS.items():
        found = measured.get(key)
        if found is None:
            table.add_row(row.what, "not measured", "", row.rival, "", f"{row.aim:g}", "")
            continue
        missed = found["ratio"] < row.aim
        said = [row.rival, found["note"], row.why if missed else ""]
        table.add_row(
            row.what,
            milliseconds(found["ours_s"]),
            milliseconds(found["rival_s"]),
            "\n".join(line for line in said if line),
            f"{found['ratio']:.3g}",
            f"{row.aim:g}",
            f"{found['processor']}, {found['usable_cores']} cores, load {found['load']:.1f}, "
            f"{found['commit'][:7]}",
        )
    return table


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.4g} ms" if seconds < 10 else f"{seconds:.1f} s"


def take_turns(
    ours: Callable[[], object],
    rival: Callable[[], object],
    *,
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Return the median seconds of each, taking turns, after one round that is not counted."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for work, taken in zip((ours, rival), seconds, strict=True):
            started = clock()
            work()
            taken.append(clock() - started)
    return statistics.median(seconds[0][1:]), statistics.median(seconds[1][1:])


@pytest.fixture(scope="session")
def medians() -> Callable[..., tuple[float, float]]:
    """`take_turns`, for the modules here."""
    return take_turns


@pytest.fixture(scope="session")
def measured() -> Iterator[Measured]:
    """The table; shown and written when the last benchmark has run."""
    found = Measured(Path(__file__).parents[2] / "runs" / "bench" / "pieces.json")
    yield found
    where = collect()
    keys = ("commit", "dirty", "processor", "usable_cores", "versions")
    facts = {**{key: where[key] for key in keys}, "load": os.getloadavg()[0]}
    Console(width=150).print(table_of(found.write(facts)))
