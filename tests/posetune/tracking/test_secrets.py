"""Passwords and tokens are planted, a sweep is submitted to a real head, and they are nowhere.

Study in PostgreSQL, tracking on an MLflow server, storage on S3, Ray with a token: each address or
variable holds a secret of its own. Afterwards every file of home, head and bucket, both databases,
the job's metadata, all output and every command line seen meanwhile are searched for them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text
from support.mlflow_server import MlflowServer

from posetune.storage import open_folder

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]


@pytest.fixture
def planted() -> dict[str, str]:
    names = ("database", "mlflow address", "mlflow", "ray", "s3")
    return {name: secrets.token_hex(24) for name in names}


@pytest.fixture
def environment(
    planted: dict[str, str],
    postgres_database: str,
    bucket: str,
    running_mlflow_server: MlflowServer,
    folder: Path,
) -> dict[str, str]:
    server = running_mlflow_server
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "160",
        "POSETUNE_HOME": str(folder / "home"),
        "POSETUNE_STORAGE": bucket,
        "POSETUNE_DATABASE": postgres_database.replace("@", f":{planted['database']}@"),
        "MLFLOW_TRACKING_URI": server.url.replace("://", f"://me:{planted['mlflow address']}@"),
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_TRACKING_PASSWORD": planted["mlflow"],
        "AWS_SECRET_ACCESS_KEY": planted["s3"],
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": planted["ray"],
    }


@pytest.fixture
def folder() -> Iterator[Path]:
    """Of home and head; Ray's sockets lie below, so its path must be short."""
    with tempfile.TemporaryDirectory(prefix="pt-", dir="/tmp", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.fixture
def head(folder: Path, environment: dict[str, str], free_port: Callable[[], int]) -> Iterator[str]:
    port = free_port()
    command = ["ray", "start", "--head", f"--port={free_port()}", "--num-cpus=2"]
    command += [f"--dashboard-port={port}", "--object-store-memory=100000000"]
    command += [f"--dashboard-agent-listen-port={free_port()}"]  # else fixed, and maybe taken
    command += [f"--ray-client-server-port={free_port()}"]
    command += [f"--temp-dir={folder / 'r'}"]
    try:
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
        yield f"http://127.0.0.1:{port}"
    finally:
        # `ray stop` would stop every Ray of this machine; ours has our folder in its commands.
        for pid, line in command_lines().items():
            if str(folder) in line:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def command_lines() -> dict[int, str]:
    """What `ps` shows of every process."""
    lines = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ")
            lines[int(process.name)] = line.decode(errors="replace")
    return lines


class Watch(threading.Thread):
    """Collects the command lines of all processes until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[str] = set()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            self.seen.update(command_lines().values())


def everything_in(database: str) -> str:
    engine = create_engine(database)
    with engine.connect() as connection:
        tables = inspect(engine).get_table_names()
        rows = [connection.execute(text(f'SELECT * FROM "{name}"')).all() for name in tables]
    engine.dispose()
    return repr(rows)


def files_with(secret: str, root: Path) -> list[str]:
    found = []
    for file in root.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # Ray is still at work
            if file.is_file() and not file.is_symlink() and secret.encode() in file.read_bytes():
                found.append(str(file))
    return found


JOBS = """
import sys
from ray.job_submission import JobSubmissionClient

client = JobSubmissionClient(sys.argv[1])
for job in client.list_jobs():
    print(repr(job), client.get_job_logs(job.submission_id))
"""


def test_no_planted_secret_is_found_anywhere_after_a_sweep(
    planted: dict[str, str],
    environment: dict[str, str],
    folder: Path,
    head: str,
    toy_sweep: Callable[..., Path],
    postgres_database: str,
    bucket: str,
    running_mlflow_server: MlflowServer,
    tmp_path: Path,
) -> None:
    file = toy_sweep(trials=3, max_epochs=2, say="hello")

    def posetune(*arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "posetune.cli", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout + result.stderr

    watch = Watch()
    watch.start()
    submit = ["submit", str(file), "--address", head, "--name", "secret", "--follow"]
    said = posetune(*submit)
    assert "3 of 3 trials" in said
    for command in (["show", "secret"], ["logs", "secret", "--trial", "0"], ["track", "secret"]):
        said += posetune(*command)
    watch.over.set()
    watch.join()

    jobs = subprocess.run(
        [sys.executable, "-c", JOBS, head], env=environment, capture_output=True, text=True
    ).stdout
    assert "posetune-secret-1" in jobs
    places = {
        "output": said,
        "a command line": "\n".join(watch.seen),
        "job metadata or log": jobs,
        "the study": everything_in(postgres_database),
        "MLflow's database": everything_in(running_mlflow_server.backend),
    }
    assert "hello" in said
    assert "secret-000" in places["MLflow's database"]
    assert any("posetune.cli sweep" in line for line in watch.seen)
    copy = open_folder(bucket)
    assert list(copy.rglob("model.safetensors"))
    for name, secret in planted.items():
        assert [place for place, content in places.items() if secret in content] == [], name
        for root in (folder, tmp_path, running_mlflow_server.folder, copy):
            assert files_with(secret, root) == [], name
