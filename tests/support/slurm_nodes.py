"""A real Slurm on this machine: a controller and nodes, each a host of its own.

What a node declares to have (CPUs, GPUs) is more than this machine has: the GPUs are device files
that nothing opens.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from support import hosts
from support.hosts import Hosts
from support.sweeps import until

__all__ = ["PROGRAMS", "Slurm", "new_slurm"]

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", *hosts.PROGRAMS)

FREEZER = Path("/sys/fs/cgroup/freezer")
"""Where slurmd makes control groups (version 1); without them it follows processes by /proc."""

NODE_CPUS, NODE_GPUS, NODE_MEMORY_MB = 4, 2, 4000

CONFIGURATION = f"""\
ClusterName=test
SlurmctldHost=control
SlurmUser=root
AuthType=auth/munge
# A job that is queued again waits until its credential has expired, usually two minutes.
AuthInfo=socket={{folder}}/munge.socket,cred_expire=5
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/{{tracking}}
TaskPlugin=task/none
ReturnToService=1
SlurmctldPidFile={{folder}}/slurmctld.pid
SlurmdPidFile={{folder}}/%n.pid
SlurmdSpoolDir={{folder}}/%n.spool
StateSaveLocation={{folder}}/state
SlurmctldLogFile={{folder}}/slurmctld.log
SlurmdLogFile={{folder}}/%n.log
SlurmdParameters=config_overrides
# After so many seconds of silence a node counts as down.
SlurmdTimeout=10
MinJobAge=3600
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
NodeName={{nodes}} CPUs={NODE_CPUS} CoresPerSocket={NODE_CPUS} RealMemory={NODE_MEMORY_MB} \
Gres=gpu:{NODE_GPUS}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

CONTROLLER = """\
munged --foreground --force --key-file="$1/munge.key" --socket="$1/munge.socket" \
  --pid-file="$1/munged.pid" --log-file="$1/munged.log" --seed-file="$1/seed" &
until [ -S "$1/munge.socket" ]; do sleep 0.1; done
slurmctld -D -c & wait $!
"""

NODE = 'slurmd -D -N "$name" -c & wait $!'


class Slurm:
    """A controller and its nodes; commands run on the controller's host, as on a login host."""

    def __init__(self, folder: Path, nodes: int, shared: Sequence[Path]) -> None:
        """Start them.

        Args:
            folder: an empty one below /tmp, for Slurm's own files.
            nodes: number of nodes.
            shared: more folders below /tmp that every node sees.
        """
        # slurmd names control groups after its node, and this machine may have another Slurm.
        mark = secrets.token_hex(3)
        self.nodes = tuple(f"s{mark}n{number}" for number in range(1, nodes + 1))
        self._folder = folder
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "RAY_"))},
            "SLURM_CONF": str(folder / "slurm.conf"),
        }
        self.hosts = Hosts(folder, self.nodes, shared, self.environment)
        self._write_files()
        self.hosts.start_control(CONTROLLER)
        self.hosts.until((folder / "munge.socket").exists)
        self.revive_all()

    def run(self, *command: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the controller's host."""
        return self.hosts.run("control", *command, **environment)

    def states(self) -> list[str]:
        """What Slurm says of each node."""
        listed = self.run("sinfo", "--noheader", "--Node", "--format=%T")
        return listed.stdout.split()

    def job(self, job_id: str) -> dict[str, str]:
        """What Slurm says of a job."""
        shown = self.run("scontrol", "--oneliner", "show", "job", job_id).stdout
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)

    def kill_node(self, node: str) -> None:
        """Cut a node's power."""
        self.hosts.kill(node)

    def revive_node(self, node: str) -> None:
        """Start a node, also after its power was cut."""
        self.hosts.start(node, NODE)

    def revive_all(self) -> None:
        """Start the nodes that are dead, and wait until Slurm has all of them."""
        for node in self.nodes:
            if not self.hosts.runs(node):
                self.revive_node(node)
        self.hosts.until(self._all_serve)

    def stop(self) -> None:
        """End everything, as a power cut does."""
        self.hosts.stop()
        for node in self.nodes:
            until(lambda node=node: self._drop_groups(FREEZER / f"slurm_{node}"))

    def _all_serve(self) -> bool:
        states = self.states()
        return len(states) == len(self.nodes) and {*states} <= {"idle", "mixed", "allocated"}

    @staticmethod
    def _drop_groups(folder: Path) -> bool:
        """Remove a node's control groups; return whether they are gone, as they are once empty."""
        for group in [*sorted(folder.rglob("*/"), reverse=True), folder]:
            with contextlib.suppress(OSError):
                group.rmdir()
        return not folder.exists()

    def _write_files(self) -> None:
        folder = self._folder
        for name in ("state", *(f"{node}.spool" for node in self.nodes)):
            (folder / name).mkdir()
        texts = {
            "slurm.conf": CONFIGURATION.format(
                folder=folder,
                nodes=",".join(self.nodes),
                tracking="cgroup" if os.access(FREEZER, os.W_OK) else "linuxproc",
            ),
            "cgroup.conf": "CgroupPlugin=cgroup/v1\nCgroupAutomount=yes\n",
            "gres.conf": f"Name=gpu File={folder}/gpu[0-{NODE_GPUS - 1}]\n",
        }
        for name, text in texts.items():
            (folder / name).write_text(text)
        for number in range(NODE_GPUS):
            os.mknod(folder / f"gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)


@contextlib.contextmanager
def new_slurm(nodes: int, shared: Sequence[Path] = ()) -> Iterator[Slurm]:
    """A Slurm for a block; nothing is left of it afterwards."""
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as path:
        slurm = Slurm(Path(path), nodes, shared)
        try:
            yield slurm
        finally:
            slurm.stop()
