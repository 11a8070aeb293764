"""The driver keeps its workers and nothing of theirs; `make bench-slots` measures what it costs."""

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


@pytest.mark.long
def test_a_worker_trains_one_trial_after_another(tmp_path: Path) -> None:
    """What a report costs, in time and memory, is measured by `make bench-slots`."""
    found = run_many(tmp_path, trials=12, slots=2, epoch_s=0.02)
    assert found.reports > 12
    assert 0 < found.busy <= 1
    assert found.workers <= 4, "none is killed for another while it starts; Ray has two in hand"


@pytest.mark.long
def test_the_driver_keeps_no_answer_of_a_worker(
    toy_sweep: Callable[..., Path], ray_head: str, tmp_path: Path
) -> None:
    file = toy_sweep(trials=2, max_epochs=60, concurrent=1)
    options = ["--name", "long", "--json", "--no-tracking", "--address", ray_head]
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, "sweep", str(file), *options],
        env={**os.environ, "POSETUNE_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kept = json.loads(done.stderr.splitlines()[-1])
    assert len(kept) > 60, "one trial of 60 epochs at least"
    assert max(kept) <= 1, "what is still to come of the one worker"
