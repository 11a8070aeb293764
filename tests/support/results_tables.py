"""Makes the tables of docs/results from the JSON of the benchmarks.

`python tests/support/results_tables.py` writes them into the pages, each between a line that names
it and a line that ends it. The JSON is in tests/benchmarks/results, and says machine and commit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["PAGES", "renewed"]

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))
PLACE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end of the table -->)", re.S)


def renewed(text: str) -> str:
    """Return a page's text with its tables made anew."""
    return PLACE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", text)


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


def gpu_step_table() -> str:
    """Return the training step on a GPU beside its plain twin."""
    found = _read("gpu")
    ours = found["ours_s"]
    rows = [
        ("the plain twin, as torch runs it", found["plain_s"]),
        ("the plain twin in whole float32", found["exact_s"]),
        ("launched from Python, with torch's own operations", found["unrecorded_s"]),
        ("with its images left in the store", found["from_store_s"]),
    ]
    lines = [
        (f"the step: {1000 * ours:.1f} ms", name, f"{1000 * other:.1f} ms", f"{other / ours:.2f}")
        for name, other in rows
    ]
    table = _table(("ours", "beside", "its time", "ratio"), lines)
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
    return f"{_table(head, rows)}\n\n{found['device']}, {found['steps']} steps; {found['note']}."


TABLES: dict[str, Callable[[], str]] = {
    "sweeps": sweeps_table,
    "gpu-step": gpu_step_table,
    "gpu-training": gpu_training_table,
}


def _read(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))


def _with_note(what: str, part: dict[str, Any]) -> str:
    return f"{what} ({part['note']})" if part.get("note") else what


def _where(part: dict[str, Any], device: str = "") -> str:
    machine = (
        device or f"{part['processor']}, {part['usable_cores']} cores, load {part['load']:.1f}"
    )
    changed = " with changes" if part["dirty"] else ""
    return f"{machine}, {part['commit'][:7]}{changed}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
