"""Sends a sweep to a Ray cluster as a job: exactly the code, the sweep file, and no secret.

The job is `posetune sweep` on the head. The same name finds the job that runs, or starts a new one
which continues the sweep from its study; so submitting twice never makes two sweeps.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import shlex
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from sqlalchemy import make_url

from posetune.api import BadInputError
from posetune.credentials import check_ray
from posetune.home import Home
from posetune.provenance import CODE_FILE, code_of
from posetune.spec import SHIPPED_TRAINABLES, TRAINABLES_VARIABLE

__all__ = ["Job", "Shipment", "follow_job", "submit_sweep"]

FRESH_HEAD_S = 60.0
"""A head that has just started answers 500 for some seconds."""

SWEEP = "posetune.sweep"


@dataclass(frozen=True)
class Shipment:
    """What is sent."""

    name: str
    source: str
    """The sweep file's text."""
    trainable: str
    store: str
    """On the cluster."""
    home: Home
    """On the cluster: its folder must be seen by every node."""


@dataclass(frozen=True)
class Job:
    """A job on the cluster."""

    job_id: str
    attached: bool
    """Whether it ran already."""
    left_behind: tuple[str, ...] = ()
    """Addresses that hold a password: they must be set on the cluster."""


def submit_sweep(shipment: Shipment, address: str) -> Job:
    """Start the sweep's job, or find the one that runs.

    Raises:
        BadInputError: nobody answers at the address, or it refuses the token.
    """
    deadline = time.monotonic() + FRESH_HEAD_S
    while True:
        try:
            return _submit(_client(address), shipment)
        except AuthenticationError as error:
            raise BadInputError(
                f"--address {address}: refuses the token (RAY_AUTH_MODE="
                f"{os.environ.get('RAY_AUTH_MODE', 'unset')}); give the cluster's token in "
                "RAY_AUTH_TOKEN, or name its file in RAY_AUTH_TOKEN_PATH"
            ) from error
        except (RuntimeError, ConnectionError) as error:
            text = str(error)
            is_fresh = "status code 500" in text or "No available agent" in text
            is_taken = "already exists" in text  # another has just submitted it: attach to that
            if not (is_fresh or is_taken) or time.monotonic() > deadline:
                line = text.strip().splitlines()[0] if text.strip() else repr(error)
                raise BadInputError(
                    f"--address {address}: no Ray job server answers there ({line}); it is the "
                    "head's dashboard, usually http://HEAD:8265"
                ) from error
            time.sleep(1.0)


def follow_job(job: Job, address: str, show: Callable[[str], None]) -> int:
    """Show a job's output until it ends; return an exit code."""
    client = _client(address)

    async def tail() -> None:
        async for text in client.tail_job_logs(job.job_id):
            show(text)

    asyncio.run(tail())
    return 0 if client.get_job_status(job.job_id) == JobStatus.SUCCEEDED else 1


def _client(address: str) -> JobSubmissionClient:
    check_ray()
    logging.getLogger("ray").setLevel(logging.WARNING)
    if "RAY_AUTH_MODE" not in os.environ and (
        os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    ):
        os.environ["RAY_AUTH_MODE"] = "token"
    return JobSubmissionClient(address)


def _submit(client: JobSubmissionClient, shipment: Shipment) -> Job:
    environment = _environment(shipment.home)
    if shipment.trainable not in SHIPPED_TRAINABLES:  # registered here, where it is installed
        environment[TRAINABLES_VARIABLE] = shipment.trainable
    left_behind = tuple(name for name in shipment.home.environment if name not in environment)
    ours = [job for job in client.list_jobs() if (job.metadata or {}).get(SWEEP) == shipment.name]
    for job in ours:
        if not _ended(job) and job.submission_id:
            return Job(job.submission_id, attached=True, left_behind=left_behind)
    with tempfile.TemporaryDirectory(prefix="posetune-submit-") as folder:
        (Path(folder) / "sweep.yaml").write_text(shipment.source, encoding="utf-8")
        (Path(folder) / "code.json").write_text(json.dumps(code_of()), encoding="utf-8")
        job_id = client.submit_job(
            entrypoint=_command(shipment),
            submission_id=f"posetune-{shipment.name}-{len(ours) + 1}",
            metadata={SWEEP: shipment.name},
            runtime_env={
                "working_dir": folder,
                "py_modules": [str(path) for path in _packages(shipment.trainable)],
                "excludes": ["**/__pycache__"],
                "env_vars": {**environment, CODE_FILE: "code.json"},
            },
        )
    return Job(job_id, attached=False, left_behind=left_behind)


def _ended(job: JobDetails) -> bool:
    return JobStatus(job.status).is_terminal()


def _command(shipment: Shipment) -> str:
    command = ["python", "-m", "posetune.cli", "sweep", "sweep.yaml", "--name", shipment.name]
    command += ["--store", shipment.store, "--address", "auto"]
    return shlex.join(command)


def _packages(trainable: str) -> list[Path]:
    """Return the folders of the packages that the job needs: the platform and the trainable."""
    names = dict.fromkeys(["posetune", trainable.partition(":")[0].partition(".")[0]])
    folders = []
    for name in names:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        folders.append(Path(spec.origin).parent)
    return folders


def _environment(home: Home) -> dict[str, Any]:
    """Return the addresses for the job; those that hold a password must be set on the cluster."""
    return {
        name: value
        for name, value in home.environment.items()
        if "://" not in value or make_url(value).password is None
    }
