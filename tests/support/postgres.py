"""A real PostgreSQL server in a folder of its own, which can be stopped and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

__all__ = ["PostgresServer", "postgres_binaries"]

USER = "postgres"


def postgres_binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs; None where it is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None


class PostgresServer:
    """A server that only this machine reaches."""

    def __init__(self, binaries: Path) -> None:
        """Make its files and start it."""
        self.folder = Path(tempfile.mkdtemp(prefix="posetune-postgres-"))
        # PostgreSQL refuses to run as root.
        as_user = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
        if as_user:
            shutil.chown(self.folder, USER)
        data = str(self.folder / "data")
        self._run([*as_user, str(binaries / "initdb"), "-D", data, "-U", USER, "--auth=trust"])
        self._control = [*as_user, str(binaries / "pg_ctl"), "-D", data, "-w"]
        self.start()

    @property
    def address(self) -> str:
        """Its address, with `{name}` for the database."""
        return f"postgresql+psycopg://{USER}@/{{name}}?host={self.folder}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        # No TCP: a socket in our own folder cannot collide with another server.
        options = f"-c listen_addresses= -k {self.folder} -c fsync=off"
        self._run([*self._control, "-o", options, "-l", str(self.folder / "log"), "start"])

    def stop(self) -> None:
        """Stop it as a crash does: every connection is broken off."""
        self._run([*self._control, "-m", "immediate", "stop"])

    def close(self) -> None:
        """Stop it where it runs, and delete its files."""
        stop = [*self._control, "-m", "immediate", "stop"]
        subprocess.run(stop, capture_output=True, cwd="/", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_database(self) -> str:
        """Make an empty database and return its address."""
        from sqlalchemy import create_engine, text

        name = f"test_{uuid.uuid4().hex[:12]}"
        engine = create_engine(self.address.format(name="postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.address.format(name=name)

    def _run(self, command: list[str]) -> None:
        subprocess.run(command, check=True, capture_output=True, cwd="/")
