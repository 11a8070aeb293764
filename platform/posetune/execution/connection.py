"""Starts Ray on this machine or joins a cluster; where that fails, says why in one line."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posetune.api import BadInputError
from posetune.spec.registration import TRAINABLES_VARIABLE
from posetune.storage.credentials import check_ray

__all__ = ["RayNotStartedError", "connected"]

REACH_S = 10.0
"""Seconds to wait for a cluster's head to take a connection; Ray itself tries for minutes."""
OF_THE_FOLDER = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENAMETOOLONG,
}
"""The system's error numbers that mean that the folder of Ray's files is at fault."""


class RayNotStartedError(RuntimeError):
    """Ray does not start on this machine; the message says why and what to do."""


@contextmanager
def connected(address: str | None, **options: Any) -> Iterator[None]:
    """Connect to Ray for a block.

    Args:
        address: a cluster to join; without, Ray is started on this machine.
        options: for `ray.init`.

    Raises:
        BadInputError: no cluster answers at the address, or it refuses us.
        RayNotStartedError: Ray does not start.
    """
    import ray

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address:
        check_ray()
        registered = os.environ.get(TRAINABLES_VARIABLE)
        # A job has an environment of its own already, and Ray takes no second one.
        if registered and "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
            options["runtime_env"] = {"env_vars": {TRAINABLES_VARIABLE: registered}}
    try:
        if address:
            _reach(address)
        with contextlib.nullcontext() if address else _kept_to_this_machine():
            # Without `local` Ray joins whatever cluster it finds on this machine.
            ray.init(address=address or "local", **quiet, **options)
    except Exception as error:  # Ray raises what it likes, also Exception itself
        with contextlib.suppress(Exception):
            ray.shutdown()
        line = " ".join(str(error).split()) or type(error).__name__
        if address:
            raise BadInputError(
                f"--address {address}: no Ray cluster answers ({line}); give HEAD:PORT as `ray "
                "start --head` printed it, or 'auto' on one of its nodes"
            ) from error
        raise RayNotStartedError(_explain(error, line)) from error
    try:
        yield
    finally:
        with _nothing_freed_elsewhere():
            ray.shutdown()


@contextmanager
def _kept_to_this_machine() -> Iterator[None]:
    """Let the Ray that starts in a block listen on loopback only, and leave `uv run` alone.

    Ray takes a machine's public address for its own, also where it is told 127.0.0.1, unless it
    takes clusters for impossible. Under `uv run` it packs the working directory and has uv make the
    environment anew for every worker, though this machine has it already. Neither has an argument,
    and Ray has read the variables for them when it was imported.
    """
    from ray._private import ray_constants

    names = ("ENABLE_RAY_CLUSTER", "RAY_ENABLE_UV_RUN_RUNTIME_ENV")
    before = {name: getattr(ray_constants, name) for name in names}
    try:
        for name in names:
            setattr(ray_constants, name, False)
        yield
    finally:
        for name, value in before.items():
            setattr(ray_constants, name, value)


@contextmanager
def _nothing_freed_elsewhere() -> Iterator[None]:
    """Turn Python's garbage collector off during a block, in every thread.

    Where it frees a reference of Ray's while Ray shuts down, Ray ends the process on the spot.
    """
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _reach(address: str) -> None:
    """Refuse an address HEAD:PORT at which nobody listens, before Ray waits for it."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()


def _explain(error: Exception, line: str) -> str:
    # Ray looks for the folder in this order; no public function tells it before Ray starts.
    folder = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")
    # Ray itself refuses a path that is too long for a socket, with an error without a number.
    too_long = "AF_UNIX path length" in line
    if too_long or (isinstance(error, OSError) and error.errno in OF_THE_FOLDER):
        remedy = (
            f"its files are below {folder}: name a folder that can be written to, with a short "
            "path, in RAY_TMPDIR"
        )
    else:
        remedy = (
            f"its logs are in {folder / 'ray' / 'session_latest' / 'logs'}; if this machine is "
            "busy, give it more time (RAY_raylet_start_wait_time_s=120)"
        )
    return f"Ray does not start on this machine ({line}); {remedy}"
