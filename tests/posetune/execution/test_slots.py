"""The driver keeps up with its slots; `make bench-slots` measures it at its full size."""

from __future__ import annotations

from pathlib import Path

import pytest

from posetune.testing.slots import run_many


@pytest.mark.ray
@pytest.mark.slow
def test_a_report_takes_little_of_the_driver(tmp_path: Path) -> None:
    found = run_many(tmp_path, trials=24, slots=6, epoch_s=0.02)
    assert found.reports > 60
    assert found.main_ms <= 15, found  # processor time: what else the machine does matters little
    assert 0 < found.busy <= 1
    assert found.workers <= 8, "none is killed for another while it starts; Ray has two in hand"
    assert found.resident[1] - found.resident[0] < 50
