"""What a report weighs, and how soon a browser shows it: 100 and 1,000 trials.

The times by the clock are of a browser on this machine, without a GPU; the file goes to
runs/bench/report.json.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import time
from pathlib import Path

import pytest
from support.browser import find_browser, start_browser
from support.simulated_driver import drive, open_unsynced, simulated_start

from posetune.provenance import collect
from posetune.report.pages.page import BestTrial, build_page
from posetune.study.reading import read_sweep

OUT = Path(__file__).parents[2] / "runs" / "bench" / "report.json"
SEARCH = {
    "loss_weights.flow": {"float": [0.01, 10], "log": True},
    "loss_weights.reprojection_2d": {"float": [0.01, 10], "log": True},
    "x": {"float": [0.01, 10], "log": True},
    "depth": {"int": [2, 16], "step": 2},
}
MOST_BYTES = {100: 3_000_000, 1000: 6_000_000}
PAINT = "performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)[0]"
DRAWN = "performance.getEntriesByName('charts-drawn').map(entry => entry.startTime)[0]"


@pytest.mark.parametrize("trials", [100, 1000])
def test_a_report_is_painted_at_once_and_stays_small(trials: int, tmp_path: Path) -> None:
    program = find_browser()
    assert program is not None, "install Chromium (Debian: chromium)"
    database = open_unsynced(tmp_path / "study.db")
    opening = simulated_start(
        budget={"trials": trials},
        search=SEARCH,
        sampler={"name": "random", "seed": 0},
        pruner={"max_epochs": 27},
    )
    defaults = {name: 1.0 for name in SEARCH} | {"depth": 8}
    drive(database, dataclasses.replace(opening, defaults=defaults), order=random.Random(0))
    view = read_sweep(database, "s")
    started = time.process_time()
    page = build_page(view, BestTrial(missing="it was not asked for"), commands=[])
    built = time.process_time() - started
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    with (
        start_browser(program) as browser,
        browser.open((tmp_path / "page.html").as_uri()) as shown,
    ):
        shown.wait_until(f"{DRAWN} > 0 && {PAINT} > 0")
        paint, drawn = shown.evaluate(PAINT) / 1000, shown.evaluate(DRAWN) / 1000
    megabytes = len(page.encode()) / 1e6
    print(
        f"\n{trials} trials: {megabytes:.2f} MB, built in {built:.1f} s of the processor, first "
        f"paint after {paint:.2f} s, all charts after {drawn:.1f} s by the clock"
    )
    figures = json.loads(OUT.read_text()) if OUT.exists() else {}
    where = collect()
    figures[str(trials)] = {
        "bytes": len(page.encode()),
        "built_processor_s": built,
        "first_paint_s": paint,
        "charts_s": drawn,
        "load": os.getloadavg()[0],
        **{key: where[key] for key in ("commit", "dirty", "processor", "usable_cores")},
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(figures, indent=1))
    assert len(page.encode()) < MOST_BYTES[trials]
    assert paint < drawn
