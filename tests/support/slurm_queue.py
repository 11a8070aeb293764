"""Jobs of sweeps on a real Slurm, and what may be left of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support.slurm_nodes import Slurm
from support.sweeps import Found, view

__all__ = ["EPOCHS", "OF_EACH", "TRIALS", "Queue"]

TRIALS, EPOCHS = 4, 3
OF_EACH = ("--cpus-per-task=1", "--mem=1500")
"""What a job asks of each node."""

_UNDER_WAY = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING"}


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
            return self.slurm.hosts.until(holds, lives=lambda: self.state(job_id) in _UNDER_WAY)
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
