"""500 toy trials on 64 simulated slots: what a report costs the driver, and whether slots wait.

Trials of 54 to 162 epochs of 2 s: short beside real ones, but long enough that the two minutes in
which 64 processes start on two cores are a small part of the whole.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from support.slots import run_many


def test_a_report_takes_little_of_the_driver(tmp_path: Path) -> None:
    """Many short epochs: here reports are all that the driver does."""
    found = run_many(tmp_path, trials=480, slots=6, epoch_s=0.02)
    Console().print(f"480 toy trials, 6 slots, epochs of 0.02 s: {found}")
    assert found.reports > 1500
    assert found.main_ms <= 15  # processor time: what else the machine does matters little
    assert found.workers <= 8, "none is killed for another while it starts; Ray has two in hand"
    # The first upload of models takes some 60 MB, once.
    assert found.resident[1] - found.resident[0] < 100


@pytest.mark.timeout(5400)
def test_64_slots_are_kept_busy_by_one_driver(tmp_path: Path) -> None:
    found = run_many(tmp_path, trials=500, slots=64, epoch_s=2.0, grace_epochs=54)
    table = Table("500 toy trials, 64 slots, epochs of 2 s", "measured", "wanted")
    table.add_row("from first to last start", f"{found.seconds:.0f} s", "")
    table.add_row("reports", f"{found.reports:,}", "")
    table.add_row("driver, a report (processor, main thread)", f"{found.main_ms:.1f} ms", "15 ms")
    table.add_row("driver, a report (processor, all threads)", f"{found.all_ms:.1f} ms", "")
    table.add_row("slots busy, first to last start", f"{found.busy:.1%}", "95 %")
    table.add_row("slots busy, once all stood", f"{found.busy_once_standing:.1%}", "")
    table.add_row(
        "driver's memory, after a quarter and in the end",
        "{:.0f}, then {:.0f} MB".format(*found.resident),
        "flat",
    )
    table.add_row("a worker's memory", f"{found.worker:.0f} MB", "")
    table.add_row("processes started for them", str(found.workers), "64")
    Console().print(table)
    assert found.main_ms <= 15
    assert found.busy >= 0.95
    assert found.resident[1] - found.resident[0] < 50
