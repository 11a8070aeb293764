"""A sweep on a real Slurm goes on after the time limit of its job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.slurm_nodes import Slurm
from support.slurm_queue import OF_EACH, Queue
from support.sweeps import Script, partial_seconds

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]


def test_a_job_goes_on_after_its_time_limit(
    queue: Queue, sweep_file: Callable[[Script], Path], tmp_path: Path
) -> None:
    script = Script(tmp_path / "script", "go", *["wait"] * 4)  # two trials at a time
    job_id = queue.submit(sweep_file(script), "full", *OF_EACH)
    queue.until(lambda: len(script.lines) == 2, job_id)
    set_limit(queue.slurm, job_id, "2")  # it is told two minutes before the end, so at once
    queue.until_restart(1, job_id)
    assert "stopped by SIGTERM" in queue.output(job_id), "it was asked, not killed"
    assert len(partial_seconds(queue.home)) == 2, "both trials saved within their epochs"
    set_limit(queue.slurm, job_id, "UNLIMITED")

    queue.until(script.is_over, job_id)
    script.let_go()
    queue.until_state("COMPLETED", job_id)
    queue.check_whole("full")


def set_limit(slurm: Slurm, job_id: str, minutes: str) -> None:
    changed = slurm.run("scontrol", "update", f"JobId={job_id}", f"TimeLimit={minutes}")
    assert changed.returncode == 0, changed.stderr
