"""`cluster/tracking/plain.sh` against a real PostgreSQL that asks for passwords."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SUDO = """\
#!/usr/bin/env bash
shift 2    # -u postgres
exec "$@"
"""
# Where MLflow would be started: whether the database lets in whoever has the password.
MLFLOW = """\
#!/usr/bin/env bash
for name in study mlflow; do
  psql --no-psqlrc --no-password --host=127.0.0.1 --username=posetune --dbname="$name" \\
    --tuples-only --no-align --command='SELECT current_database()'
done
"""


class Server:
    """A PostgreSQL server that can be away."""

    def __init__(self, folder: Path, binaries: Path, port: int) -> None:
        self._as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._as_user:
            shutil.chown(folder, "postgres")
        self.folder, self.port, self._binaries = folder, port, binaries
        trusted = ["--auth-local=trust", "--auth-host=scram-sha-256"]
        self._run("initdb", "--username=postgres", *trusted, "--pgdata", str(folder / "data"))

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c fsync=off"
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, str(self._binaries / program), *arguments]
        with (self.folder.parent / f"{self.folder.name}.log").open("a") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, cwd="/")


@pytest.fixture
def server(
    required: Callable[[str, bool, str], None], free_port: Callable[[], int]
) -> Iterator[Server]:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    required("postgres", bool(folders), "install PostgreSQL (Debian: postgresql)")
    with tempfile.TemporaryDirectory(prefix="posetune-plain-") as above:
        Path(above).chmod(0o755)
        folder = Path(above, "server")
        folder.mkdir()
        made = Server(folder, folders[-1], free_port())
        made.start()
        yield made
        made.stop()


@pytest.mark.parametrize("password", ["plain", r"a:b\c", 'it\'s "$HOME" `x` \\:'])
def test_the_servers_start_with_any_password_also_after_postgres_was_down(
    server: Server, repository: Path, tmp_path: Path, password: str
) -> None:
    script = tmp_path / "cluster" / "tracking" / "plain.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(repository / "cluster" / "tracking" / "plain.sh", script)
    for file, text in {"bin/sudo": SUDO, ".venv/bin/mlflow": MLFLOW}.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
        (tmp_path / file).chmod(0o755)

    def run(typed: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PG")},
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "PGPORT": str(server.port),
        }
        # `psql` as the user postgres, by the socket; MLflow's and ours by password, to 127.0.0.1.
        environment |= {"PGHOST": str(server.folder), "PGUSER": "postgres"}
        command = ["bash", str(script), str(tmp_path / "artifacts")]
        return subprocess.run(
            command, env=environment, input=f"{typed}\n", capture_output=True, text=True
        )

    server.stop()
    down = run("another")
    assert down.returncode != 0
    server.start()
    first, second = run(password), run("nobody asks")

    assert first.stdout.splitlines()[-2:] == ["study", "mlflow"], first.stderr
    assert second.stdout.splitlines()[-2:] == ["study", "mlflow"], second.stderr
    assert (tmp_path / ".posetune-postgres").stat().st_mode & 0o777 == 0o600
