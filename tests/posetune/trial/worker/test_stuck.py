"""An epoch without a sign of life ends its process, and nothing else does."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from posetune.trial.worker.stuck import FIRST_S, LEAST_S, MEDIANS, StuckWatch

HANGS = """
import sys, time
from pathlib import Path
from posetune.trial.worker.stuck import StuckWatch

watch = StuckWatch(limit_s=3, median_s=0, leave_mark=Path(sys.argv[1]).touch)
time.sleep(3.5)  # between epochs nothing is watched
with watch.epoch():
    for _ in range(18):
        time.sleep(0.2)  # slow, but with signs of life
        watch.beat()
print("goes on", flush=True)
with watch.epoch():
    time.sleep(3600)
"""


def test_a_stuck_epoch_ends_its_process_and_says_where_it_was(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    ended = subprocess.run(
        [sys.executable, "-c", HANGS, str(mark)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == "goes on\n"
    assert mark.exists()
    assert "no progress for 3 s: the worker is killed" in ended.stderr
    assert 'File "<string>", line 14' in ended.stderr  # where it sleeps


@pytest.mark.parametrize(
    ("limit_s", "median_s", "expected"),
    [(None, 0.0, FIRST_S), (None, 1.0, LEAST_S), (None, 100.0, MEDIANS * 100.0), (5.0, 100.0, 5.0)],
)
def test_the_limit_is_twenty_times_the_median_epoch(
    limit_s: float | None, median_s: float, expected: float
) -> None:
    watch = StuckWatch(limit_s=limit_s, median_s=median_s, leave_mark=lambda: None)
    assert watch.limit_s == expected
    watch.close()


def test_an_attempt_learns_the_length_of_its_own_epochs() -> None:
    watch = StuckWatch(limit_s=None, median_s=0.0, leave_mark=lambda: None)
    with watch.epoch():
        pass
    assert watch.limit_s == LEAST_S
    watch.close()
