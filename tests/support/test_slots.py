"""The driver keeps up with its slots; `make bench-slots` measures it at its full size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.slots import run_many

pytestmark = [pytest.mark.ray, pytest.mark.slow]

COUNTING = """
import json, sys
from posetune.cli import main
from posetune.execution import scheduler

kept = []


class Counting(scheduler.StudyScheduler):
    def on_trial_result(self, controller, trial, result):
        decision = super().on_trial_result(controller, trial, result)
        futures = controller._actor_manager._tracked_actors_to_task_futures
        kept.append(sum(map(len, futures.values())))
        return decision


scheduler.StudyScheduler = Counting
try:
    main()
finally:
    print(json.dumps(kept), file=sys.stderr)
"""


def test_a_report_takes_little_of_the_driver(tmp_path: Path) -> None:
    found = run_many(tmp_path, trials=480, slots=6, epoch_s=0.02)
    assert found.reports > 1500
    assert found.main_ms <= 15, found  # processor time: what else the machine does matters little
    assert 0 < found.busy <= 1
    assert found.workers <= 8, "none is killed for another while it starts; Ray has two in hand"
    # The first upload of models takes some 60 MB, once.
    assert found.resident[1] - found.resident[0] < 100, found


def test_the_driver_keeps_no_answer_of_a_worker(
    toy_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    file = toy_sweep(trials=2, max_epochs=60, cpu=os.cpu_count() or 1)
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, "sweep", str(file), "--name", "long", "--json"],
        env={**os.environ, "POSETUNE_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kept = json.loads(done.stderr.splitlines()[-1])
    assert len(kept) > 60, "one trial of 60 epochs at least"
    assert max(kept) <= 1, "what is still to come of the one worker"
