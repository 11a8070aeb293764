"""Makes the tables of docs/results from the JSON of the benchmarks.

`python tests/support/results_tables.py` takes what the benchmarks have left in runs/bench into
tests/benchmarks/results, and writes the tables into the pages, each between a line that names it
and a line that ends it. The JSON says machine and commit.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where it is run as a program

from support.learning_sweeps_table import ablation_table, sweep_table, sweep_wrists_table
from support.learning_table import aims_table, curves_table, level_table, wrists_table
from support.learning_trainings_table import trainings_table
from support.search_table import search_table, whole_table
from support.times_table import table as modules_table

__all__ = ["PAGES", "renewed"]

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))
TAKEN = ("pieces", "report", "forecast", "gpu", "gpu_training", "tests")
"""The results that a benchmark leaves in runs/bench and that a table here is made of."""
PLACE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end of the table -->)", re.S)


def renewed(text: str) -> str:
    """Return a page's text with its tables made anew."""
    return PLACE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", text)


def take_new() -> None:
    """Take what benchmarks have written on this machine since."""
    for name in TAKEN:
        new, kept = ROOT / "runs" / "bench" / f"{name}.json", RESULTS / f"{name}.json"
        if new.exists() and (not kept.exists() or kept.stat().st_mtime < new.stat().st_mtime):
            shutil.copyfile(new, kept)


def pieces_table() -> str:
    """Return the hot pieces beside their rivals."""
    rows = [
        (
            row["what"],
            _time(found["ours_s"]),
            f"{row['rival']}: {_time(found['rival_s'])}" + _said(row, found),
            f"{found['ratio']:.3g}",
            f"{row['aim']:g}",
            _where(found),
        )
        for row in _read("pieces")["rows"]
        for found in [row["measured"]]
        if found
    ]
    return _table(("what", "ours", "beside", "ratio", "aim", "measured on"), rows)


def _said(row: dict[str, Any], found: dict[str, Any]) -> str:
    """Return the note of a row, and why it misses its aim if it does."""
    missed = f"missed: {row['why']}" if found["ratio"] < row["aim"] and row["why"] else ""
    return "".join(f"; {said}" for said in (found["note"], missed) if said)


def _time(seconds: float) -> str:
    return f"{1000 * seconds:,.4g} ms" if seconds < 10 else f"{seconds:,.1f} s"


def report_table() -> str:
    """Return what a report weighs, and how soon a browser shows it."""
    rows = [
        (
            f"{int(trials):,}",
            f"{found['bytes'] / 1e6:.2f} MB",
            f"{found['built_processor_s']:.1f} s",
            f"{found['first_paint_s']:.2f} s",
            f"{found['charts_s']:.1f} s",
            _where(found),
        )
        for trials, found in sorted(_read("report").items(), key=lambda item: int(item[0]))
    ]
    head = ("trials", "size", "built, of the processor", "first paint", "all charts", "measured on")
    return _table(head, rows)


def searches_table(make: Callable[[dict[str, Any]], str]) -> str:
    """Return the searches that were replayed; what is counted does not hang on the machine."""
    found = _read("search")
    commits = ", ".join(sorted({_commit(row) for row in found.values()}))
    return f"{make(found)}\n\nReplayed at {commits}."


def searches_before_table() -> str:
    """Return the searches of sweeps that were begun under the rules of before."""
    found = _read("sweep")["epochs"]
    rows = [
        (
            name,
            "never" if search["epochs"] is None else _spread(search["epochs"], search["interval"]),
            ""
            if name == "random, in full" or not search["ratio"]
            else _spread(search["ratio"], search["ratio_interval"], digits=2),
            str(search["not_reached"]),
        )
        for name, search in found["searches"].items()
    ]
    head = ("search", "epochs", "fewer than random in full", "seeds that never got there")
    return f"{_table(head, rows)}\n\nReplayed at {_commit(found)}, {found['seeds']} seeds each."


def _spread(value: float, interval: Sequence[float], *, digits: int = 0) -> str:
    low, high = interval
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def forecast_table() -> str:
    """Return how often forecasts held."""
    found = _read("forecast")
    rows = [
        (
            row["when"],
            row["what"],
            str(row["forecasts"]),
            f"{row['held']:.1%}",
            f"{row['too_low']:.1%}",
            f"{row['too_high']:.1%}",
            f"{row['width']:.2f}",
        )
        for row in found["rows"]
    ]
    head = ("asked", "of", "forecasts", "held", "too low", "too high", "high / low, median")
    return f"{_table(head, rows)}\n\nMeasured on {_where(found)}."


def sweeps_table() -> str:
    """Return whole sweeps beside their rivals."""
    found = _read("sweep")
    named = {
        "quickstart": ("quickstart trials to the end, beside a plain script with Tune", "2"),
        "stages": ("pre-trainings of 100 lifting trials, beside one per trial", "20"),
        "epochs": ("epochs to within 1 mm of the best, beside random search in full", "3"),
    }
    rows = [
        (
            _with_note(what, part),
            part["ours"],
            part["rival"],
            f"{part['ratio']:.2f}",
            aim,
            _where(part),
        )
        for key, (what, aim) in named.items()
        for part in [found[key]]
    ]
    return _table(("what", "ours", "rival", "ratio", "aim", "measured on"), rows)


TEST_RUNS = {"check": 3, "test": 12, "test-long": 25}
"""The targets of make that run tests, and the minutes that each may take."""
MODULES_SHOWN = 16


def test_runs_table() -> str:
    """Return what each run of the tests took, beside its limit."""
    found = _read("tests")
    rows = [
        (
            f"`make {name}`",
            f"{run['tests']:,}",
            str(run["failed"]),
            str(run["skipped"]),
            "{:.0f} min {:02.0f} s".format(*divmod(round(run["clock_s"]), 60)),
            f"{limit} min",
            f"{sum(module['processor_s'] for module in run['modules'].values()):,.0f} s",
        )
        for name, limit in TEST_RUNS.items()
        if (run := found["runs"].get(name))
    ]
    machine = f"{found['processor']}, {found['usable_cores']} cores"
    head = ("run", "tests", "failed", "skipped", "by the clock", "limit", "of the processor")
    return f"{_table(head, rows)}\n\nMeasured on {_where(found, machine)}."


def test_modules_table(run: str) -> str:
    """Return the modules of a run of the tests that took longest."""
    return modules_table(_read("tests")["runs"][run]["modules"], most=MODULES_SHOWN)


def gpu_step_table() -> str:
    """Return the training step on a GPU and its parts beside their rivals."""
    found = _read("gpu")
    step_s = found["ours_s"]
    step = f"{1000 * step_s:.1f} ms"
    rivals = [
        ("the plain twin, as torch runs it", found["plain_s"], "6"),
        ("the plain twin in whole float32", found["exact_s"], "6"),
        ("the step launched from Python, with torch's own operations", found["unrecorded_s"], ""),
        ("the step with its images left in the store", found["from_store_s"], ""),
    ]
    rows = [
        ("training step", step, f"{what}: {1000 * s:.1f} ms", f"{s / step_s:.3g}", aim)
        for what, s, aim in rivals
    ]
    rate, best = found["operations"] / step_s / 1e12, found["matrix_rate"] / 1e12
    drawn_us, copied_us = 1e6 * found["renderer_s"], 1e6 * found["copy_s"]
    rows += [
        (
            f"its {found['operations'] / 1e12:.3g} TFLOP",
            f"{rate:.0f} TFLOP/s",
            f"bf16 matrices of 8192: {best:.0f} TFLOP/s",
            f"{rate / best:.0%}",
            "25 %",
        ),
        (
            "renderer, forward and backward",
            f"{drawn_us:.0f} us",
            f"reading and writing its image once, in the cache: {copied_us:.1f} us",
            f"{drawn_us / copied_us:.1f} times as long",
            "at most 3",
        ),
        (
            "the images of a step, resident",
            f"{1e6 * found['input_s']:.0f} us",
            f"the step: {step}",
            f"{found['input_s'] / step_s:.2%}",
            "under 1 %",
        ),
        ("memory, images not resident", f"{found['peak_bytes'] / 1e9:.1f} GB", "", "", "12 GB"),
    ]
    table = _table(("what", "ours", "beside", "ratio", "aim"), rows)
    return f"{table}\n\nMeasured on {_where(found, found['device'])}."


def gpu_training_table() -> str:
    """Return short trainings in the fast and in the plain way."""
    found = _read("gpu_training")
    rows = [
        (
            run["way"],
            str(run["seed"]),
            f"{run['p_mpjpe_mm']:.1f}",
            f"{run['p_mpjpe_mirrored_mm']:.1f}",
            f"{run['seconds']:.1f}",
        )
        for run in sorted(found["runs"], key=lambda run: (run["way"], run["seed"]))
    ]
    head = ("way", "seed", "P-MPJPE, mm", "with mirrors, mm", "seconds")
    said = found.get("note") or f"measured at {_commit(found)}"
    return f"{_table(head, rows)}\n\n{found['device']}, {found['steps']} steps; {said}."


TABLES: dict[str, Callable[[], str]] = {
    "pieces": pieces_table,
    "report": report_table,
    "forecast": forecast_table,
    "search-before": searches_before_table,
    "search": lambda: searches_table(search_table),
    "search-whole": lambda: searches_table(whole_table),
    "sweeps": sweeps_table,
    "test-runs": test_runs_table,
    "test-modules": lambda: test_modules_table("test"),
    "test-long-modules": lambda: test_modules_table("test-long"),
    "gpu-step": gpu_step_table,
    "gpu-training": gpu_training_table,
    "learning-aims": lambda: aims_table(_table),
    "learning-curves": lambda: curves_table(_table),
    "learning-wrists": lambda: wrists_table(_table),
    "learning-lifting": lambda: level_table("lifting", _table),
    "learning-plain": lambda: level_table("plain", _table),
    "learning-clothes": lambda: level_table("clothes", _table),
    "learning-rooms": lambda: level_table("rooms", _table),
    "learning-ablation": lambda: ablation_table("ablation", _table),
    "learning-quickstart": lambda: sweep_table("quickstart", _table),
    "learning-quickstart-wrists": lambda: sweep_wrists_table("quickstart", _table),
    "learning-pieces": lambda: trainings_table("pieces", _table, what="changed"),
    "learning-beside": lambda: trainings_table(
        "beside", _table, first={"piece": "ours, nothing changed"}
    ),
    "learning-beside-lifting": lambda: trainings_table("beside-lifting", _table, sees_images=False),
    "learning-hands": lambda: sweep_table("hands", _table),
}


def _read(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))


def _with_note(what: str, part: dict[str, Any]) -> str:
    return f"{what} ({part['note']})" if part.get("note") else what


def _where(part: dict[str, Any], device: str = "") -> str:
    machine = (
        device or f"{part['processor']}, {part['usable_cores']} cores, load {part['load']:.1f}"
    )
    return f"{machine}, {_commit(part)}"


def _commit(part: dict[str, Any]) -> str:
    return part["commit"][:7] + (" with changes" if part.get("dirty") else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    take_new()
    for page in PAGES:
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
