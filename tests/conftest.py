"""Fixtures that several packages' tests share."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from posetune.study.database import Database, open_database
from posetune.testing.toy import Toy

ROOT = Path(__file__).parents[1]


def find_free_port() -> int:
    """Return a port of loopback where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """`find_free_port`, for other modules of the tests."""
    return find_free_port


def require(program: str, found: bool, remedy: str) -> None:
    """Skip where a program is absent; fail if POSETUNE_REQUIRE says it must be there."""
    if found:
        return
    if program in os.environ.get("POSETUNE_REQUIRE", "").split(","):
        pytest.fail(f"POSETUNE_REQUIRE asks for {program}: {remedy}")
    pytest.skip(f"needs {program}: {remedy}")


@pytest.fixture(scope="session")
def required() -> Callable[[str, bool, str], None]:
    """`require`, for other modules of the tests."""
    return require


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def mocap_file() -> Path:
    """The shared file of real motion, where there is one."""
    file = ROOT.parent / "shared" / "data" / "mocap17.h5"
    if not file.exists():
        pytest.skip(f"needs the shared motion file, not at {file}")
    return file


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 2 MB of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"needs to mount a small file system: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def toy_store(tmp_path: Path) -> Path:
    """A store of the toy trainable."""
    store = tmp_path / "toy-store"
    importer = Toy.importers()["toy"]
    importer.run(None, store, importer.options(), lambda done, total, note="": None)
    return store


TOY_SWEEP = """\
trainable: posetune.testing.toy:Toy
store: {store}
objective: {{metric: val/error_mm, mode: min}}
search:
  x: {{float: [0.01, 1], log: true}}
  depth: {{int: [2, 8], step: 2}}
fixed: {{epoch_s: {epoch_s}}}
sampler: {{name: tpe, seed: 0}}
pruner: {{name: asha, max_epochs: {max_epochs}, grace_epochs: 1, reduction_factor: 3}}
resources: {{cpu: {cpu}}}
budget: {{trials: {trials}}}
"""


@pytest.fixture
def toy_sweep(tmp_path: Path, toy_store: Path) -> Callable[..., Path]:
    """Write a sweep file of the toy trainable."""

    def write(*, trials: int = 8, max_epochs: int = 9, cpu: int = 1, epoch_s: float = 0.0) -> Path:
        file = tmp_path / "toy.yaml"
        file.write_text(
            TOY_SWEEP.format(
                store=toy_store, trials=trials, max_epochs=max_epochs, cpu=cpu, epoch_s=epoch_s
            )
        )
        return file

    return write


@pytest.fixture
def posetune(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command as a user would, with a home of its own."""

    def run(*arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "posetune.cli", *map(str, arguments)],
            cwd=tmp_path,
            env=command_environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


def command_environment(folder: Path) -> dict[str, str]:
    """The environment of a command: its home below `folder`, nothing that redirects it."""
    redirecting = {"POSETUNE_DATABASE", "POSETUNE_STORAGE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"}
    kept = {k: v for k, v in os.environ.items() if k not in redirecting}
    return {**kept, "POSETUNE_HOME": str(folder / "home"), "COLUMNS": "160"}


@pytest.fixture
def shown(posetune: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[[str], dict]:
    """Return what `posetune show NAME --json` says."""

    def show(name: str) -> dict:
        result = posetune("show", name, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return show


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A real PostgreSQL server on loopback; its address without a database."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    require("postgres", bool(folders), "install PostgreSQL (Debian: postgresql)")
    binaries = folders[-1]
    folder = Path(tempfile.mkdtemp(prefix="posetune-postgres-"))
    # PostgreSQL refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    user = "postgres"
    initdb = [*as_user, str(binaries / "initdb"), "-D", str(folder / "data"), "-U", user]
    subprocess.run([*initdb, "--auth=trust"], check=True, capture_output=True, cwd="/")
    control = [*as_user, str(binaries / "pg_ctl"), "-D", str(folder / "data"), "-w"]
    # No TCP: a socket in our own folder cannot collide with another server.
    options = f"-c listen_addresses= -k {folder} -c fsync=off"
    start = [*control, "-o", options, "-l", str(folder / "log"), "start"]
    subprocess.run(start, check=True, capture_output=True, cwd="/")
    try:
        yield f"postgresql+psycopg://{user}@/{{name}}?host={folder}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], capture_output=True, cwd="/")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_database(postgres_server: str) -> str:
    """The address of a new, empty PostgreSQL database."""
    return new_database(postgres_server)


@pytest.fixture
def other_postgres_database(postgres_server: str) -> str:
    """The address of another one on the same server."""
    return new_database(postgres_server)


def new_database(postgres_server: str) -> str:
    """Make a database and return its address."""
    import uuid

    from sqlalchemy import create_engine, text

    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = create_engine(postgres_server.format(name="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return postgres_server.format(name=name)


class MlflowServer:
    """An MLflow server on loopback that can be started and killed again and again."""

    def __init__(self, folder: Path, backend: str | None = None) -> None:
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.backend = backend or f"sqlite:///{folder / 'server.db'}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        environment = {
            **os.environ,
            "MLFLOW_BACKEND_STORE_URI": self.backend,
            "MLFLOW_ARTIFACTS_DESTINATION": (self.folder / "server-artifacts").as_uri(),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urlopen(f"{self.url}/health", timeout=5):
                    return
            except (URLError, OSError):
                assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
                time.sleep(0.2)

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[Callable[..., MlflowServer]]:
    """Make MLflow servers that are away at first; they are gone after the test."""
    made = []

    def make(backend: str | None = None) -> MlflowServer:
        made.append(MlflowServer(tmp_path, backend))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty study database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path / 'study.db'}"
    else:
        address = request.getfixturevalue("postgres_database")
    opened = open_database(address)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A real S3 server on loopback; its address. It asks for no credentials."""
    with start_s3() as address:
        yield address


@pytest.fixture(scope="session")
def s3_servers() -> Callable[..., contextlib.AbstractContextManager[str]]:
    """Start S3 servers of one's own; keywords are for their environment."""
    return start_s3


@contextlib.contextmanager
def start_s3(**environment: str) -> Iterator[str]:
    """Start an S3 server, and end it."""
    port = find_free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert server.poll() is None, "the S3 server has ended"
            assert time.monotonic() < deadline, "the S3 server does not answer"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The address of a new, empty bucket; this process and its children reach it."""
    import uuid

    from pyarrow import fs

    given = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "POSETUNE_CACHE": str(tmp_path / "node-cache"),
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3 = fs.S3FileSystem(endpoint_override=s3_server, allow_bucket_creation=True)
    s3.create_dir(name)
    return f"s3://{name}/some/where"


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A procedural store of 64 frames per split at 64x64, level plain."""
    from selfpose.trainable import SelfPose

    store = tmp_path_factory.mktemp("stores") / "tiny"
    importer = SelfPose.importers()["procedural"]
    options = importer.options(image_size=64, limit=64, level="plain")
    importer.run(None, store, options, lambda done, total, note="": None)
    return store
