"""Sweeps on a real Slurm: slurmctld, slurmd and munge on this machine, with real Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.slurm_queue import OF_EACH, Queue
from support.sweeps import Script

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]


def test_of_two_jobs_that_share_their_nodes_one_ends_and_the_other_loses_its_head_and_is_cancelled(
    repository: Path,
    queue: Queue,
    sweep_file: Callable[[Script], Path],
    toy_store: Path,
    tmp_path: Path,
) -> None:
    of_each = [*OF_EACH, "--gpus-per-node=1"]
    our_script = Script(tmp_path / "ours", *["wait"] * 2)
    our_file = sweep_file(our_script)
    # What the user's shell says counts less than the command.
    queue.environment["SBATCH_PARTITION"] = "none"
    ours = queue.submit(our_file, "ours", *of_each, "--partition=gpu")
    again = queue.submit(our_file, "ours", *of_each, "--partition=gpu")
    assert again == ours, "it is in the queue already"
    del queue.environment["SBATCH_PARTITION"]
    refused = queue.send(our_file, "ours", *of_each)
    assert refused.returncode == 2
    assert f"is in Slurm already as job {ours}, which is another: its script" in refused.stderr

    their_script = Script(tmp_path / "theirs", *["wait"] * 4)
    by_hand = ["--parsable", "--nodes=2", *of_each, f"--output={queue.home}/by-hand-%j.log"]
    sbatch = repository / "cluster" / "slurm" / "sweep.sbatch"
    arguments = [sweep_file(their_script), "theirs", toy_store]
    sent = queue.slurm.run("sbatch", *by_hand, sbatch, *arguments, **queue.environment)
    theirs = sent.stdout.strip()

    queue.until(our_script.is_over, ours)
    queue.until(lambda: len(their_script.lines) == 2, theirs)
    our_script.let_go()
    queue.until_state("COMPLETED", ours)
    assert "sweep ours: COMPLETE" in queue.output(ours)
    assert queue.slurm.job(ours)["Restarts"] == "0"
    queue.check_whole("ours")
    for node in queue.slurm.nodes:
        assert queue.folders(node) == [f"ray-{theirs}"], "it took nothing of the other's with it"

    queue.slurm.hosts.run(queue.slurm.nodes[0], "pkill", "-KILL", "gcs_server")
    queue.until_restart(1, theirs)
    queue.until(their_script.is_over, theirs)
    queue.cancel(theirs)


@pytest.mark.parametrize("sign", ["gcs_server", "posetune sweep"])
def test_a_job_that_is_cancelled_while_it_starts_is_not_queued_again(
    queue: Queue, sweep_file: Callable[[Script], Path], tmp_path: Path, sign: str
) -> None:
    file = sweep_file(Script(tmp_path / "script"))
    job_id = queue.submit(file, "full", *OF_EACH)
    queue.until(
        lambda: any(sign in line for line in queue.slurm.hosts.processes(queue.slurm.nodes[0])),
        job_id,
    )
    queue.cancel(job_id)
