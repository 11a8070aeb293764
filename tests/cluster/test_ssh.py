"""Ray's launcher over real SSH: the commands of cluster/README.md, on hosts of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from support import hosts
from support.hosts import Hosts
from support.sweeps import Script, view

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

SSHD = "/usr/sbin/sshd"  # which wants to be called by its whole path
NODES = ("head", "worker")
ADDRESS = "http://127.0.0.1:8265"

UNASKED = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"

HOME = 'mount --bind "$1/passwd-$name" /etc/passwd\n'
USER = HOME + "sleep infinity & wait $!\n"
NODE = HOME + f'mount -t tmpfs tmpfs /run; mkdir /run/sshd\n{SSHD} -D -e -f "$1/sshd" & wait $!\n'

OTHERS = "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"

# What a busy machine needs: Ray gives a node 30 seconds to start, and its workers nice 15.
SERVER = """\
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
PasswordAuthentication no
UsePAM no
PidFile none
SetEnv RAY_raylet_start_wait_time_s=180 RAY_worker_niceness=0
"""


class Machines:
    """A user's machine and two nodes with sshd, each with a home folder of its own."""

    def __init__(self, folder: Path, repository: Path, shared: Path) -> None:
        self._repository, self.key = repository, folder / "key"
        for name in ("host_key", "key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(command, check=True)
        (folder / "sshd").write_text(SERVER.format(folder=folder))
        for name in ("user", *NODES):
            home = folder / f"home-{name}"
            shutil.copytree("/etc/skel", home)
            (folder / f"passwd-{name}").write_text(f"root:x:0:0::{home}:/bin/bash\n{OTHERS}")
        for name in NODES:  # in place of `pip install`, which needs a package index
            (folder / f"home-{name}" / "posetune").mkdir()
            (folder / f"home-{name}" / "posetune" / ".venv").symlink_to(sys.prefix)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        path = f"{sys.prefix}/bin:{os.environ['PATH']}"
        environment = {**kept, "HOME": str(folder / "home-user"), "PATH": path}
        self.hosts = Hosts(folder, ("user", *NODES), [shared], environment)
        self.hosts.start_control("sleep infinity & wait $!\n")
        self.hosts.start("user", USER)
        for name in NODES:
            self.hosts.start(name, NODE)
            self.hosts.until(lambda name=name: "sshd" in str(self.hosts.processes(name)))

    def run(self, line: str) -> str:
        """Run a line of the README on the user's machine; return what it printed."""
        command = ["env", f"--chdir={self._repository}", "bash", "-c", line]
        ended = self.hosts.run("user", *command, timeout=300)
        assert ended.returncode == 0, f"{line}\n{ended.stdout}{ended.stderr}\n{self.hosts.log()}"
        return ended.stdout + ended.stderr

    def answers(self, port: int) -> bool:
        """Whether a port of the user's machine takes connections."""
        return self.hosts.run("user", "bash", "-c", f"</dev/tcp/127.0.0.1/{port}").returncode == 0

    def of_ray(self, name: str) -> list[str]:
        """What of Ray or of a sweep runs on a node."""
        signs = ("raylet", "gcs_server", "ray::", "/ray/", "posetune.cli")
        return [p for p in self.hosts.processes(name) if any(sign in p for sign in signs)]


@pytest.fixture
def machines(
    required: Callable[[str, bool, str], None], repository: Path, tmp_path: Path
) -> Iterator[Machines]:
    programs = (SSHD, "ssh", "rsync", *hosts.PROGRAMS)
    is_there = os.geteuid() == 0 and all(map(shutil.which, programs))
    required("sshd", is_there, "be root and install sshd (Debian: openssh-server rsync)")
    with tempfile.TemporaryDirectory(prefix="ssh-", dir="/tmp") as folder:
        made = Machines(Path(folder), repository, tmp_path)
        try:
            yield made
        finally:
            made.hosts.stop()


def edited(file: Path, folder: Path, key: Path) -> Path:
    """The launcher's file for these machines, as the README has it edited."""
    text = file.read_text().replace("/shared/runs", str(folder / "home"))
    config = yaml.safe_load(text)
    config["provider"].update(head_ip=f"{hosts.NETWORK}.12", worker_ips=[f"{hosts.NETWORK}.13"])
    config["auth"].update(ssh_user="root", ssh_private_key=str(key))
    config.update(min_workers=1, max_workers=1)
    installs = [c for c in config["setup_commands"] if "pip install" in c]
    assert len(installs) == 1
    config["setup_commands"].remove(installs[0])
    written = folder / "on_premise.yaml"
    written.write_text(yaml.safe_dump(config))
    return written


def commands(repository: Path, changes: dict[str, str]) -> list[str]:
    """The commands of the README's part on Ray's launcher, with other words in them."""
    text = (repository / "cluster" / "README.md").read_text()
    block = text.split("## With Ray's launcher", 1)[1].split("```")[1]
    block = block.replace("\\\n", " ").strip()
    for word, other in changes.items():
        assert word in block
        block = block.replace(word, other)
    return [line.split("  #")[0].strip() for line in block.splitlines()]


def test_the_readmes_commands_run_a_sweep_over_ssh_and_leave_nothing_running(
    machines: Machines,
    repository: Path,
    toy_sweep: Callable[..., Path],
    toy_store: Path,
    tmp_path: Path,
) -> None:
    script = Script(tmp_path / "script", "go", "wait")
    sweep = toy_sweep(trials=2, max_epochs=3, concurrent=1, script=str(script.file))
    config = edited(repository / "cluster" / "on_premise.yaml", tmp_path, machines.key)
    changes = {
        "cluster/on_premise.yaml": str(config),
        "search_spaces/selfpose/full.yaml": str(sweep),
        "/shared/store": str(toy_store),
        "/shared/runs": str(tmp_path / "home"),
        "ray up": "ray up --yes",
        "ray down": "ray down --yes",
        "ssh USER@WORKER": f"ssh -i {machines.key} {UNASKED} root@{hosts.NETWORK}.13",
    }
    token, up, dashboard, export, check, submit, show, logs, stop, down, end_worker = commands(
        repository, changes
    )

    machines.run(token)
    machines.run(up)
    machines.hosts.until(lambda: any("raylet" in p for p in machines.of_ray("worker")))
    machines.run(f"nohup {dashboard.removesuffix('&')} >/dev/null 2>&1 &")
    machines.hosts.until(lambda: machines.answers(8265))
    assert "good on 2 nodes" in machines.run(f"{export}; {check}")

    machines.run(f"{export}; {submit.removesuffix('--follow')}")
    machines.hosts.until(script.is_over)
    assert "stopped by root@user" in machines.run(f"{export}; {stop}")
    script.let_go()
    machines.run(f"{export}; {submit}")
    assert "sweep full: COMPLETE" in machines.run(f"{export}; {show}")
    assert "the driver stopped: finished" in machines.run(f"{export}; {logs}")
    found = view(tmp_path / "home", "full")
    assert found is not None
    assert [(t.state, t.epochs) for t in found.trials] == [("COMPLETE", 3)] * 2

    assert all(machines.of_ray(name) for name in NODES)
    machines.run(down)
    machines.run(end_worker)
    assert {name: machines.of_ray(name) for name in NODES} == {name: [] for name in NODES}
