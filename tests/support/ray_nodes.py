"""Real Ray nodes with token authentication, each with an address of its own on loopback."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from support import autoscaling
from support.ports import find_free_port

__all__ = ["Cluster", "Node", "new_cluster", "start_head"]

MARK = "POSETUNE_TEST_NODE"
"""Every process of a node inherits it; so a node is found, and killed, whole."""

PATIENT = {"RAY_raylet_start_wait_time_s": "180", "RAY_worker_niceness": "0"}
"""What a node needs beside other tests: time to start, and workers that get their share of it."""


class Node:
    """One `ray start`, and all processes that come from it."""

    def __init__(self, ip: str, environment: dict[str, str], agent_port: int) -> None:
        self.ip, self.mark, self.agent_port = ip, uuid.uuid4().hex, agent_port
        self.environment = {**PATIENT, **environment, MARK: self.mark}

    def start(self, *options: str, within: Sequence[str] = ()) -> None:
        command = [*within, "ray", "start", f"--node-ip-address={self.ip}"]
        command += ["--object-store-memory=80000000", "--disable-usage-stats", *options]
        # Fixed by default, and taken where this machine has another Ray.
        command += [f"--dashboard-agent-listen-port={self.agent_port}"]
        for is_last in (False, False, True):
            started = subprocess.run(command, env=self.environment, capture_output=True)
            if started.returncode == 0:
                return
            self.kill()  # a busy machine was too slow for Ray
            assert not is_last, (started.stdout + started.stderr).decode()

    def processes(self) -> list[int]:
        sign, found = f"{MARK}={self.mark}".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if sign in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found

    def kill(self) -> None:
        """End it as a power cut does."""
        while processes := self.processes():
            for pid in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Cluster:
    """A head that takes no trials, and workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}"
        self.port, self.dashboard = find_free_port(), find_free_port()
        self.address = f"http://{self.network}.1:{self.dashboard}"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "POSETUNE_"))},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "POSETUNE_HOME": str(folder / "home"),
            "COLUMNS": "160",
        }
        self.nodes: list[Node] = []

    def start_head(self, cpus: int = 0, **environment: str) -> Node:
        """Start a head, or another after the first has been killed, at the same address."""
        head = Node(f"{self.network}.1", {**self.environment, **environment}, find_free_port())
        self.nodes.append(head)
        temporary = self.folder / f"r{len(self.nodes)}"
        head.start(
            "--head",
            f"--port={self.port}",
            f"--num-cpus={cpus}",
            f"--dashboard-host={head.ip}",
            f"--dashboard-port={self.dashboard}",
            f"--ray-client-server-port={find_free_port()}",
            f"--temp-dir={temporary}",
        )
        return head

    def start_workers(
        self, count: int, *, cpus: int = 2, within: Sequence[str] = (), **environment: str
    ) -> list[Node]:
        """Start workers; `within` is a command that runs another."""
        workers = []
        for _ in range(count):
            ip = f"{self.network}.{len(self.nodes) + 1}"
            workers.append(Node(ip, {**self.environment, **environment}, find_free_port()))
            self.nodes.append(workers[-1])
            workers[-1].start(
                f"--address={self.network}.1:{self.port}",
                f"--num-cpus={cpus}",
                # Of its own: a node unpacks a job's packages anew, under the feet of another.
                f"--temp-dir={self.folder / f'r{len(self.nodes)}'}",
                within=within,
            )
        return workers

    def posetune(
        self, *arguments: object, timeout: float = 240, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a machine that is no node."""
        return subprocess.run(
            [sys.executable, "-m", "posetune.cli", *map(str, arguments)],
            cwd=self.folder,
            env={**self.environment, **changes},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()


@contextlib.contextmanager
def new_cluster() -> Iterator[Cluster]:
    """A cluster without nodes at first; all of its nodes are gone afterwards."""
    # Ray's sockets lie below its folder, and their paths must stay under 107 characters.
    with tempfile.TemporaryDirectory(prefix="pt-", dir="/tmp", ignore_cleanup_errors=True) as path:
        cluster = Cluster(Path(path))
        try:
            yield cluster
        finally:
            cluster.stop()


@contextlib.contextmanager
def start_head(cpus: int, *, grows_by: int = 0, is_newer: bool = False) -> Iterator[str]:
    """Start a head that takes trials, for a block; return its address for `--address`.

    It asks for no token, so that a command needs nothing but the address.

    Args:
        cpus: its cores.
        grows_by: how many nodes of one core its autoscaler may add (default: it has none).
        is_newer: whether that is the newer one of Ray's two.
    """
    ip = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}.1"
    port = find_free_port()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "POSETUNE_"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
    }
    with tempfile.TemporaryDirectory(prefix="pt-", dir="/tmp", ignore_cleanup_errors=True) as path:
        options = []
        if grows_by:
            config = Path(path, "autoscaling.json")
            autoscaling.write_config(config, f"{ip}:{port}", grows_by)
            options.append(f"--autoscaling-config={config}")
            environment |= autoscaling.environment(is_newer=is_newer)
        head = Node(ip, environment, find_free_port())
        try:
            head.start(
                "--head",
                f"--port={port}",
                f"--num-cpus={cpus}",
                "--include-dashboard=false",
                "--include-log-monitor=false",
                f"--ray-client-server-port={find_free_port()}",
                f"--temp-dir={path}",
                *options,
            )
            yield f"{ip}:{port}"
        finally:
            head.kill()
