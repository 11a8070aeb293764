"""Speaks with the job server of a Ray head: waits for one that is away, and reads its jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

from aiohttp import ClientError
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from posetune.api import BadInputError
from posetune.storage.credentials import check_ray

__all__ = [
    "Say",
    "ask",
    "details_of",
    "exit_code",
    "has_ended",
    "is_rays",
    "silence_clients",
    "tail",
]

FRESH_HEAD_S = 60.0
"""Seconds for which a head that has just started may answer 500."""

SILENT_S = 30.0
"""Seconds without output after which the head is asked whether the job still runs."""

NO_AGENT = (
    "its head has no agent that could start a job (No available agent): another Ray on that "
    "machine holds the agent's port, 52365; end that one, or give this cluster another port (ray "
    "start --head --dashboard-agent-listen-port=PORT)"
)
"""What to do where Ray itself says no more than that it has no agent."""

TALKERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers of Ray that would print a line for each upload and each request."""

T = TypeVar("T")
Say = Callable[[str], None]


def ask(
    address: str,
    call: Callable[[JobSubmissionClient], T],
    *,
    away_s: float = 0.0,
    say: Say = lambda line: None,
) -> T:
    """Ask the head's job server; ask again while it has just started or is away."""
    begun, told = time.monotonic(), False
    while True:
        try:
            return call(connect(address))
        except AuthenticationError as error:
            raise BadInputError(
                f"--address {address}: refuses the token (RAY_AUTH_MODE="
                f"{os.environ.get('RAY_AUTH_MODE', 'unset')}); give the cluster's token in "
                "RAY_AUTH_TOKEN, or name its file in RAY_AUTH_TOKEN_PATH"
            ) from error
        except (RuntimeError, OSError) as error:
            text = str(error)
            is_fresh = "status code 50" in text or "No available agent" in text
            is_taken = "already exists" in text  # another has just submitted it: attach to that
            patience = max(away_s, FRESH_HEAD_S) if is_fresh or is_taken else away_s
            if time.monotonic() - begun >= patience:
                line = text.strip().splitlines()[0] if text.strip() else repr(error)
                if "No available agent" in text:
                    raise BadInputError(f"--address {address}: {NO_AGENT}") from error
                raise BadInputError(
                    f"--address {address}: no Ray job server answers there ({line}); it is the "
                    "head's dashboard, usually http://HEAD:8265"
                ) from error
            if not (told or is_fresh or is_taken):
                say(f"{address} does not answer; waiting up to {away_s / 60:.0f} min for the head")
                told = True
            time.sleep(1.0)


def silence_clients() -> None:
    """Let Ray's clients say no more than warnings; each sets a level of its own when it is made."""
    for name in TALKERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def connect(address: str) -> JobSubmissionClient:
    check_ray()
    silence_clients()
    if "RAY_AUTH_MODE" not in os.environ and (
        os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    ):
        os.environ["RAY_AUTH_MODE"] = "token"
    return JobSubmissionClient(address)


def details_of(client: JobSubmissionClient, job_id: str) -> JobDetails | None:
    """Return what a head knows of a job; None where it knows nothing, as after a restart."""
    try:
        return client.get_job_info(job_id)
    except RuntimeError as error:
        if "status code 404" in str(error):
            return None
        raise


def has_ended(job: JobDetails) -> bool:
    """Whether a job has come to its end, of whatever kind."""
    return JobStatus(job.status).is_terminal()


def exit_code(job: JobDetails) -> int | None:
    """Return a command's exit code; None where it did not end by itself."""
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if job.status == JobStatus.STOPPED:
        return 130
    code = job.driver_exit_code
    was_killed = code is None or code < 0 or (code > 128 and code != 130)
    return None if was_killed else code


def tail(job_id: str, address: str, show: Say, *, skip: int) -> int:
    """Show a job's output until it ends, falls silent or the head is lost.

    Args:
        job_id: the job.
        address: the head's job server.
        show: takes the output.
        skip: characters that were shown already.

    Returns:
        The characters that were shown by now.
    """
    seen = 0

    async def read() -> None:
        nonlocal seen
        chunks = aiter(connect(address).tail_job_logs(job_id))
        while True:
            text = await asyncio.wait_for(anext(chunks), SILENT_S)
            if new := text[max(0, skip - seen) :]:
                show(new)
            seen += len(text)

    with contextlib.suppress(
        StopAsyncIteration, TimeoutError, RuntimeError, OSError, ClientError, AuthenticationError
    ):
        asyncio.run(read())
    return max(skip, seen)


def is_rays(line: str) -> bool:
    """Return whether Ray itself printed a line of a job's output, before the command began."""
    return line.startswith("Running entrypoint for job ") or " INFO job_manager.py:" in line
