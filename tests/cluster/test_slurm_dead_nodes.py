"""A sweep on a real Slurm goes on after each of its nodes has died."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.slurm_queue import OF_EACH, Queue
from support.sweeps import Script

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]


def test_a_job_goes_on_after_each_of_its_nodes_has_died(
    queue: Queue, sweep_file: Callable[[Script], Path], tmp_path: Path
) -> None:
    first, second = queue.slurm.nodes
    script = Script(tmp_path / "script", *["wait"] * 4)
    job_id = queue.submit(sweep_file(script), "full", *OF_EACH)
    queue.until(lambda: len(script.lines) == 2, job_id)
    queue.slurm.kill_node(first)
    queue.until_restart(1, job_id)
    queue.slurm.revive_node(first)

    queue.until(script.is_over, job_id)
    queue.slurm.kill_node(second)
    # Ray may notice it long before Slurm does, and what is left takes a moment.
    queue.until(lambda: queue.slurm.job(job_id)["NodeList"] == first, job_id)
    script.let_go()
    queue.until_state("COMPLETED", job_id)
    assert queue.slurm.job(job_id)["Restarts"] == "1", "the other node went on"
    queue.check_whole("full")
    queue.slurm.revive_all()
    queue.check_nothing_is_left()
