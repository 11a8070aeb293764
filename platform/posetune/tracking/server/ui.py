"""Serves MLflow's UI on a home's tracking store."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from posetune.api import BadInputError
from posetune.home import Home
from posetune.signals import take_signals
from posetune.tracking.server.connection import UI_HOST, UI_PORT, connect, is_server, public_address

__all__ = ["serve_ui"]

START_S = 120.0
"""Seconds for which the server may take to answer before it is no longer announced."""


def serve_ui(
    home: Home, *, host: str = UI_HOST, port: int = UI_PORT, say: Callable[[str, str], None]
) -> int:
    """Serve the UI until interrupted; if tracking is a server already, only say where it is.

    Args:
        home: the home whose tracking is shown.
        host: address to serve on; anything but loopback shows the runs to the network.
        port: TCP port to serve on.
        say: function that is called with "starting", "running" or "ended", and the address or the
            reason of the end.

    Returns:
        The exit code: 0 if a person interrupted it, 1 if the server ended by itself.

    Raises:
        BadInputError: the port is taken.
    """
    if is_server(home):
        say("running", public_address(home.tracking))
        return 0
    _check_free(host, port)
    connect(home)  # makes the store before the server's processes would all try to
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", host, "--port", str(port)]
    # Addresses may hold passwords, and every user of the machine can read command lines, so they
    # go through the environment.
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": home.tracking,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": home.artifacts.as_uri(),
        "MLFLOW_ARTIFACTS_DESTINATION": home.artifacts.as_uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    url = f"http://{host}:{port}"
    log = home.folder / "mlflow-ui.log"
    say("starting", url)
    # SIGTERM ends us as Ctrl-C does, so that no server is left behind.
    with take_signals(_interrupt, (signal.SIGTERM,)):
        with log.open("w", encoding="utf-8") as out:
            # The server is several processes; a session of its own lets us end them all.
            server = subprocess.Popen(
                command,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            return _attend(server, url, log, say)
        except KeyboardInterrupt:
            return 0
        finally:
            _end(server)


def _interrupt(number: signal.Signals) -> bool:
    raise KeyboardInterrupt


def _attend(
    server: subprocess.Popen[bytes], url: str, log: Path, say: Callable[[str, str], None]
) -> int:
    """Say when the server answers, then wait until it ends."""
    deadline = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(f"{url}/health", timeout=5):
                say("running", url)
                break
        except (URLError, OSError):
            time.sleep(0.2)
    code = server.wait()
    say("ended", f"code {code}; what it said is in {log}")
    return 1


def _end(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=5)
            return


def _check_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise BadInputError(
            f"--port {port}: cannot be served on {host} ({error.strerror}); give another --port"
        ) from error
