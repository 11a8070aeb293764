"""`posetune submit` against a real head with token authentication."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from posetune.home import Home
from posetune.provenance import collect
from posetune.study.database import open_database
from posetune.study.view import read_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Head:
    """A Ray head of this machine, and how to talk to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"http://127.0.0.1:{free_port()}"
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "POSETUNE_HOME": str(folder / "home"),
            "COLUMNS": "160",
        }

    def start(self) -> None:
        """Start it; the port of its own services is free too, so that no other Ray is touched."""
        port = self.address.rpartition(":")[2]
        command = ["ray", "start", "--head", f"--port={free_port()}", "--num-cpus=2"]
        command += [f"--dashboard-port={port}", "--object-store-memory=100000000"]
        command += [f"--temp-dir={self.folder / 'r'}"]
        subprocess.run(command, env=self.environment, check=True, capture_output=True, timeout=120)

    def posetune(self, *arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "posetune.cli", *map(str, arguments)],
            cwd=self.folder,
            env={**self.environment, **changes},
            capture_output=True,
            text=True,
            timeout=240,
        )


@pytest.fixture
def head() -> Iterator[Head]:
    # Ray's sockets lie below its folder, and their paths must stay under 107 characters.
    with tempfile.TemporaryDirectory(prefix="pt-", dir="/tmp") as folder:
        started = Head(Path(folder))
        started.start()
        try:
            yield started
        finally:
            # `ray stop` would stop every Ray of this machine; ours has our folder in its commands.
            subprocess.run(["pkill", "-9", "-f", folder], capture_output=True)


def test_a_sweep_is_submitted_once_followed_and_found(head: Head, toy_sweep) -> None:
    arguments = ("submit", toy_sweep(trials=5), "--address", head.address, "--name", "sent")
    first = head.posetune(*arguments, "--json")
    assert first.returncode == 0, first.stderr
    again = head.posetune(*arguments, "--follow")
    assert again.returncode == 0, again.stderr
    assert "runs already" in again.stderr
    assert "5 of 5 trials" in again.stderr
    view = json.loads(head.posetune("show", "sent", "--json").stdout)
    assert (view["state"], len(view["trials"])) == ("COMPLETE", 5)

    database = open_database(Home.resolve(head.folder / "home").database)
    provenance = read_sweep(database, "sent").provenance
    assert provenance["commit"] == collect()["commit"] != "unknown"

    refused = head.posetune(*arguments, RAY_AUTH_TOKEN="w" * 32)
    assert refused.returncode == 2
    assert "refuses the token" in refused.stderr
    assert "Traceback" not in refused.stderr
