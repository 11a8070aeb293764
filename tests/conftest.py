"""Fixtures that several packages' tests share."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.commands import Posetune, command_environment, run_here
from support.mlflow_server import MlflowServer
from support.ports import find_free_port
from support.postgres import PostgresServer, postgres_binaries
from support.ray_nodes import start_head

from posetune.study.tables.database import Database, open_database
from posetune.testing.toy import Toy

pytest_plugins = ["support.one_process", "support.processor_time"]

ROOT = Path(__file__).parents[1]

os.environ.setdefault("COLUMNS", "160")  # the commands' console is made once a process
# Ray gives a node half a minute to start, which a busy machine may need.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")
# Ray starts workers with nice 15: beside other tests they would get hardly any time.
os.environ.setdefault("RAY_worker_niceness", "0")


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
def own_mounts() -> None:
    """Lets a test give a process folders of its own, by `unshare --mount`."""
    made = subprocess.run(["unshare", "--mount", "true"], capture_output=True)
    require("root", made.returncode == 0, "be root, to give a process folders of its own")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 2 MB of its own."""
    require("root", os.geteuid() == 0, "be root, to mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    require("root", mounted.returncode == 0, f"be allowed to mount: {mounted.stderr.strip()}")
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
resources: {{{resources}}}
budget: {{trials: {trials}}}
"""


@pytest.fixture
def toy_sweep(tmp_path: Path, toy_store: Path) -> Callable[..., Path]:
    """Write a sweep file of the toy trainable."""

    def write(
        *,
        trials: int = 8,
        max_epochs: int = 9,
        cpu: int = 1,
        epoch_s: float = 0.0,
        concurrent: int | None = None,
        **fixed: object,
    ) -> Path:
        """Write it; `concurrent` trials at a time, `fixed` are more fields of the toy."""
        file = tmp_path / "toy.yaml"
        resources = f"cpu: {cpu}" + (f", concurrent: {concurrent}" if concurrent else "")
        text = TOY_SWEEP.format(
            store=toy_store,
            trials=trials,
            max_epochs=max_epochs,
            resources=resources,
            epoch_s=epoch_s,
        )
        more = "".join(f"{name}: {json.dumps(value)}, " for name, value in fixed.items())
        file.write_text(text.replace("fixed: {", "fixed: {" + more))
        return file

    return write


@pytest.fixture
def posetune(tmp_path: Path) -> Posetune:
    """Run a command in this process, with a home of its own: imports are paid once a run."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return run_here(*arguments, folder=tmp_path)

    return run


@pytest.fixture
def posetune_process(tmp_path: Path) -> Posetune:
    """Run a command in a process of its own, where that is the point."""

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


@pytest.fixture(scope="session")
def ray_head() -> Iterator[str]:
    """The address of a Ray head with 4 slots for all tests of this process that do not kill it."""
    with start_head(cpus=4) as address:
        yield address


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store with its tables, to be copied: making them takes seconds."""
    from posetune.home import Home
    from posetune.tracking.server.connection import connect

    folder = tmp_path_factory.mktemp("mlflow-template")
    connect(Home.resolve(folder).prepare())
    return folder / "mlflow.db"


@pytest.fixture
def migrated_home(tmp_path: Path, mlflow_template: Path) -> Path:
    """The home of `posetune`, whose MLflow store has its tables already."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(mlflow_template, home / "mlflow.db")
    return home


@pytest.fixture
def shown(posetune: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[[str], dict]:
    """Return what `posetune show NAME --json` says."""

    def show(name: str) -> dict:
        result = posetune("show", name, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return show


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL server on loopback."""
    with contextlib.closing(start_postgres()) as server:
        yield server


@pytest.fixture
def stoppable_postgres_server() -> Iterator[PostgresServer]:
    """One of the test's own, that it may stop and start again."""
    with contextlib.closing(start_postgres()) as server:
        yield server


def start_postgres() -> PostgresServer:
    """Start a server; skip where PostgreSQL is absent."""
    binaries = postgres_binaries()
    require("postgres", binaries is not None, "install PostgreSQL (Debian: postgresql)")
    assert binaries is not None
    return PostgresServer(binaries)


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> str:
    """The address of a new, empty PostgreSQL database."""
    return postgres_server.new_database()


@pytest.fixture
def other_postgres_database(postgres_server: PostgresServer) -> str:
    """The address of another one on the same server."""
    return postgres_server.new_database()


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
