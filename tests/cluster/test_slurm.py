"""Sweeps on a real Slurm: slurmctld, slurmd and munge on this machine, with real Ray."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.slurm_nodes import PROGRAMS, Slurm, new_slurm
from support.sweeps import Found, Script, partial_seconds, view

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

TRIALS, EPOCHS = 4, 3
OF_EACH = ("--cpus-per-task=1", "--mem=1500")
"""What a job asks of each node."""
UNDER_WAY = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING"}


@pytest.fixture(scope="module")
def slurm(
    required: Callable[[str, bool, str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Slurm]:
    """A Slurm of two nodes for the tests of this module."""
    is_there = os.geteuid() == 0 and all(map(shutil.which, PROGRAMS))
    required("slurm", is_there, "be root and install Slurm (Debian: slurm-wlm munge)")
    with new_slurm(2, shared=[tmp_path_factory.getbasetemp()]) as running:
        yield running


class Queue:
    """The jobs of a test, which share a home."""

    def __init__(self, slurm: Slurm, folder: Path) -> None:
        self.slurm, self.home = slurm, folder / "home"
        self.environment = {
            "VENV": sys.prefix,
            "POSETUNE_HOME": str(self.home),
            "COLUMNS": "160",
            # What a busy machine needs, whose time Ray's workers are to share with everything else,
            # and how soon a lost head is given up.
            "RAY_raylet_start_wait_time_s": "120",
            "RAY_worker_niceness": "0",
            "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
        }

    def submit(self, file: Path, name: str, *options: str) -> str:
        """Submit a sweep; return the number of its job."""
        sent = self.send(file, name, *options)
        assert sent.returncode == 0, sent.stderr
        return json.loads(sent.stdout)["job_id"]

    def send(self, file: Path, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Submit a sweep, which may be refused."""
        words = ["submit", file, "--slurm", "--name", name, "--nodes", "2", *options, "--json"]
        command = [sys.executable, "-m", "posetune.cli", *words]
        return self.slurm.run(*command, **self.environment)

    def state(self, job_id: str) -> str:
        return self.slurm.job(job_id)["JobState"]

    def output(self, job_id: str) -> str:
        """What the job has printed in all of its runs."""
        return "".join(file.read_text() for file in self.home.rglob(f"*-{job_id}.log"))

    def until(self, holds: Callable[[], Found], job_id: str) -> Found:
        """Wait for what can only come while the job is not over."""
        try:
            return self.slurm.hosts.until(holds, lives=lambda: self.state(job_id) in UNDER_WAY)
        except AssertionError:
            print(self.output(job_id))
            raise

    def until_gone(self) -> None:
        """Wait until Slurm has nothing more to do for the jobs that are over."""
        self.slurm.hosts.until(lambda: not self.slurm.run("squeue", "--noheader").stdout.strip())

    def until_restart(self, number: int, job_id: str) -> None:
        self.until(lambda: self.slurm.job(job_id)["Restarts"] == str(number), job_id)

    def until_state(self, state: str, job_id: str) -> None:
        self.until(lambda: self.state(job_id) == state, job_id)

    def cancel(self, job_id: str) -> None:
        """Cancel a job, which then stays away and leaves nothing."""
        restarts = self.slurm.job(job_id)["Restarts"]
        self.slurm.run("scancel", job_id)
        self.until_gone()
        ended = self.slurm.job(job_id)
        assert (ended["JobState"], ended["Restarts"]) == ("CANCELLED", restarts)
        self.check_nothing_is_left()

    def check_nothing_is_left(self) -> None:
        """No process, no file and no token of a job is left on any node."""
        for node in self.slurm.nodes:
            left = self.slurm.hosts.processes(node)
            assert not [line for line in left if "ray" in line or "posetune" in line], left
            assert not self.folders(node)
        assert not list(self.home.glob(".ray-token*"))

    def folders(self, node: str) -> list[str]:
        """The folders of Ray on a node, one a job."""
        return [name for name in self.slurm.hosts.files(node, "/tmp") if name.startswith("ray")]

    def check_whole(self, name: str, trials: int = TRIALS) -> None:
        """All trials of a sweep are there once, with each epoch once."""
        found = view(self.home, name)
        assert found is not None
        assert [(t.number, t.state, t.epochs) for t in found.trials] == [
            (number, "COMPLETE", EPOCHS) for number in range(trials)
        ]
        assert len(found.reports) == trials * EPOCHS


@pytest.fixture
def queue(slurm: Slurm, tmp_path: Path) -> Iterator[Queue]:
    made = Queue(slurm, tmp_path)
    yield made
    slurm.run("scancel", "--me")
    slurm.revive_all()  # a test that failed may have left one dead
    made.until_gone()


@pytest.fixture
def sweep_file(toy_sweep: Callable[..., Path]) -> Callable[[Script], Path]:
    """Write a sweep whose trials are not pruned and do what a script says, beside the script."""

    def write(script: Script) -> Path:
        file = toy_sweep(trials=TRIALS, max_epochs=EPOCHS, cpu=1, script=str(script.file))
        file.write_text(file.read_text().replace("name: asha", "name: none"))
        return file.rename(script.file.with_suffix(".yaml"))

    return write


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


def set_limit(slurm: Slurm, job_id: str, minutes: str) -> None:
    changed = slurm.run("scontrol", "update", f"JobId={job_id}", f"TimeLimit={minutes}")
    assert changed.returncode == 0, changed.stderr


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
