"""A real Slurm on this machine: a controller and nodes, each in namespaces of its own.

A node has its own processes, network, host name, /tmp and /dev/shm, and an Ethernet to the others;
so killing its first process is a power cut. What it declares to have (CPUs, GPUs) is more than this
machine has: the GPUs are device files that nothing opens.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from support.sweeps import Found, until

__all__ = ["PROGRAMS", "Slurm", "new_slurm"]

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "unshare", "ip")

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
set -eu
folder=$1
mount --make-rprivate /
mount --bind "$folder/hosts" /etc/hosts
hostname control
ip link set lo up
ip link add bridge type bridge
ip addr add 10.77.0.1/24 dev bridge
ip link set bridge up
munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/seed" &
until [ -S "$folder/munge.socket" ]; do sleep 0.1; done
slurmctld -D -c & wait $!
"""

NODE = """\
set -eu
node=$1 address=$2; shift 2
mount --make-rprivate /
mount -t tmpfs -o mode=1777 tmpfs /mnt
for folder in "$@"; do  # what all nodes see
  mkdir -p "/mnt/${folder#/tmp/}"
  mount --bind "$folder" "/mnt/${folder#/tmp/}"
done
mount --rbind /mnt /tmp
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
hostname "$node"
ip link set lo up
until ip link set "$node" name eth0 2>/dev/null; do sleep 0.1; done
ip addr add "$address/24" dev eth0
ip link set eth0 up
slurmd -D -N "$node" -c & wait $!
"""


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
        self._folder, self._shared = folder, (folder, *shared)
        self._addresses = {node: f"10.77.0.{number}" for number, node in enumerate(self.nodes, 11)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "RAY_"))},
            "SLURM_CONF": str(folder / "slurm.conf"),
        }
        self._write_files()
        self._start("control", CONTROLLER, str(folder))
        self.until((folder / "munge.socket").exists)
        for node in self.nodes:
            self._start_node(node)
        self.until(lambda: self.states() == ["idle"] * nodes)

    def run(self, *command: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the controller's host."""
        return subprocess.run(
            [*self._inside("control"), *map(str, command)],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

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
        self._kill(node)

    def revive_node(self, node: str) -> None:
        """Start a node whose power was cut."""
        self._start_node(node)

    def kill_processes(self, node: str, name: str) -> None:
        """Kill the processes of a name on a node, as its memory's end does."""
        self._look(node, "pkill", "-KILL", "-x", name)

    def processes(self, node: str) -> list[str]:
        """The command lines of what runs on a node."""
        return self._look(node, "ps", "-eo", "args=").splitlines()

    def files(self, node: str, folder: str) -> list[str]:
        """What lies in a folder, as a node sees it."""
        return self._look(node, "ls", "-A", folder).split()

    def log(self) -> str:
        """What the daemons have said."""
        return "".join(
            f"--- {file.name}\n{file.read_text(errors='replace')}"
            for file in sorted(self._folder.glob("*.log"))
        )

    def until(
        self, holds: Callable[[], Found], *, lives: Callable[[], bool] = lambda: True
    ) -> Found:
        """Wait for something that can only come while `lives`, and all daemons run."""

        def can_come() -> bool:
            return lives() and all(p.poll() is None for p in self._processes.values())

        try:
            return until(holds, lives=can_come)
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self.log()}") from error

    def stop(self) -> None:
        """End everything, as a power cut does."""
        for name in list(self._processes):
            self._kill(name)
        for node in self.nodes:
            until(lambda node=node: self._drop_groups(FREEZER / f"slurm_{node}"))

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
            "hosts": "127.0.0.1 localhost\n10.77.0.1 control\n"
            + "".join(f"{address} {node}\n" for node, address in self._addresses.items()),
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

    def _start_node(self, node: str) -> None:
        # From the controller's file system, so that it has the same names of hosts.
        within = self._inside("control", "--mount")
        shared = map(str, self._shared)
        self._start(node, NODE, node, self._addresses[node], *shared, within=within)
        first = str(self.until(lambda: self._first(node)))
        for step in (
            ["ip", "link", "add", f"to-{node}", "type", "veth", "peer", node, "netns", first],
            ["ip", "link", "set", f"to-{node}", "master", "bridge", "up"],
        ):
            subprocess.run([*self._inside("control", "--net"), *step], check=True)

    def _start(self, name: str, script: str, *arguments: str, within: Sequence[str] = ()) -> None:
        # It ends with this process, whatever ends that.
        command = [*within, "setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--net", "--uts"]
        command += ["--ipc", "--pid", "--mount-proc", "--fork", "--kill-child"]
        with (self._folder / f"{name}.start.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*command, "bash", "-c", script, name, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _first(self, name: str) -> int | None:
        """The first process of a host, as this machine numbers it; None before it is there."""
        parent = self._processes[name].pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return int(children[0]) if children else None

    def _inside(self, name: str, *spaces: str) -> list[str]:
        every = ("--mount", "--net", "--uts", "--ipc", "--pid")
        return ["nsenter", f"--target={self._first(name)}", *(spaces or every)]

    def _look(self, node: str, *command: str) -> str:
        looked = subprocess.run(
            [*self._inside(node), *command], capture_output=True, text=True, check=True
        )
        return looked.stdout

    def _kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()  # and with it the first process of the host, which ends the host
        process.wait()


@contextlib.contextmanager
def new_slurm(nodes: int, shared: Sequence[Path] = ()) -> Iterator[Slurm]:
    """A Slurm for a block; nothing is left of it afterwards."""
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as path:
        slurm = Slurm(Path(path), nodes, shared)
        try:
            yield slurm
        finally:
            slurm.stop()
