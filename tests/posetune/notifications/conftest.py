"""Servers that are away at first, and a home whose sweep tells them of everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.receivers import HttpReceiver, SmtpReceiver

from posetune.home import Home
from posetune.spec.notify import EVENTS, Destination, parse_destinations
from posetune.storage import open_storage

SECRET = "planted-5fd1c2"


@pytest.fixture
def http() -> Iterator[HttpReceiver]:
    """An HTTP server."""
    server = HttpReceiver()
    yield server
    server.stop()


@pytest.fixture
def smtp() -> Iterator[SmtpReceiver]:
    """An SMTP server that asks for a login."""
    server = SmtpReceiver(user="me", password=SECRET)
    yield server
    server.stop()


@pytest.fixture
def notify_home(tmp_path: Path) -> Home:
    return Home(
        folder=tmp_path,
        database=f"sqlite:///{tmp_path / 'study.db'}",
        storage=open_storage(tmp_path / "storage"),
        tracking=f"sqlite:///{tmp_path / 'mlflow.db'}",
        artifacts=tmp_path / "mlartifacts",
    )


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secrets" / "hook"
    file.parent.mkdir()
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def webhook(http: HttpReceiver, secret_file: Path) -> Destination:
    """The HTTP server as a signed webhook that wants everything."""
    given = {"webhook": http.url, "secret": {"file": str(secret_file)}, "events": EVENTS}
    return parse_destinations([given])[0]


@pytest.fixture
def mail(smtp: SmtpReceiver, secret_file: Path) -> Destination:
    """The SMTP server as a destination that wants everything."""
    given = {
        "email": ["a@example.org", "b@example.org"],
        "server": "127.0.0.1",
        "port": smtp.port,
        "security": "none",
        "sender": "posetune@example.org",
        "user": "me",
        "password": {"file": str(secret_file)},
        "events": EVENTS,
    }
    return parse_destinations([given])[0]


@pytest.fixture
def planted() -> str:
    """The secret in `secret_file`, which nobody else may know."""
    return SECRET
