"""Sends commands to a Ray cluster as jobs: exactly the code, the sweep file, and no secret.

A sweep's job is `posetune sweep` on the head. The same name finds the job that runs, or starts a
new one which continues the sweep from its study; so submitting twice never makes two sweeps, and
following one may submit it again when its driver or the head has died.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import importlib.util
import json
import logging
import os
import shlex
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from aiohttp import ClientError
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from sqlalchemy import make_url

from posetune.api import BadInputError
from posetune.home import Home
from posetune.provenance import CODE_FILE, PERSON_VARIABLE, code_of, this_person, user_name
from posetune.spec.registration import SHIPPED_TRAINABLES, TRAINABLES_VARIABLE
from posetune.storage.credentials import check_ray

__all__ = [
    "HEAD_S",
    "Begun",
    "ClusterJob",
    "Parcel",
    "Shipment",
    "await_start",
    "follow_sweep",
    "run_there",
    "submit_sweep",
]

FRESH_HEAD_S = 60.0
"""Seconds for which a head that has just started may answer 500."""

HEAD_S = 600.0
"""Seconds for which `follow_sweep` waits for a head that is away."""

START_S = 90.0
"""Seconds for which `await_start` waits until the driver says where its MLflow run is."""

SILENT_S = 30.0
"""Seconds without output after which the head is asked whether the job still runs."""

BRIEF_S = 60.0
"""Seconds that a driver must live for its death not to count as brief."""

BRIEF_LIVES = 3
"""Number of brief lives of drivers in a row after which a sweep is not submitted again."""

SWEEP = "posetune.sweep"

FILE_CHARACTERS = 20_000
"""How much of a sweep file a job's metadata hold, to be compared with another."""

DIFF_LINES = 40
"""Lines of the difference between two files that are shown."""

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


@dataclass(frozen=True)
class Parcel:
    """Holds what is sent to the cluster with a command."""

    home: Home
    """The home on the cluster; every node must see its folder."""
    source: str = ""
    """Text of the sweep file, which becomes sweep.yaml in the job's working directory."""
    trainable: str = ""
    """The trainable, whose package is sent beside the platform's."""
    columns: int | None = None
    """Width of the terminal that shows the output, in characters."""


@dataclass(frozen=True)
class Shipment:
    """A sweep that is sent to a cluster."""

    name: str
    parcel: Parcel
    store: str
    """Address of the store on the cluster: a folder that every node sees, or s3://..."""


@dataclass(frozen=True)
class ClusterJob:
    """A job on the cluster."""

    job_id: str
    attached: bool
    """Whether the job was running already."""
    left_behind: tuple[str, ...] = ()
    """Names of the variables that hold a password: they do not travel, set them on the cluster."""


@dataclass(frozen=True)
class Begun:
    """Says what a job has printed in its first moments, and whether it has ended."""

    log: str
    code: int | None
    """Exit code of a job that has ended already; None while it runs."""


def submit_sweep(shipment: Shipment, address: str, *, away_s: float = 0.0) -> ClusterJob:
    """Start the sweep's job, or find the one that runs.

    Args:
        shipment: the sweep.
        address: the head's job server.
        away_s: how long to wait for a head that does not answer at all.

    Raises:
        BadInputError: nobody answers at the address, or it refuses the token; or the job that runs
            under this name is another person's, or has another file, home or store.
    """
    return _ask(address, lambda client: _submit(client, shipment), away_s=away_s)


def await_start(job: ClusterJob, address: str, sign: str) -> Begun:
    """Wait at most `START_S` until a job has printed `sign` or has ended."""
    deadline = time.monotonic() + START_S
    while True:
        log = _ask(address, lambda client: client.get_job_logs(job.job_id))
        details = _ask(address, lambda client: _details(client, job.job_id))
        code = _exit_code(details) if details and _ended(details) else None
        has_ended = details is None or _ended(details)
        if sign in log or has_ended or time.monotonic() > deadline:
            return Begun(log, 1 if has_ended and code is None else code)
        time.sleep(0.5)


def follow_sweep(shipment: Shipment, job: ClusterJob, address: str, *, show: Say, say: Say) -> int:
    """Show a sweep's output until it ends, whatever happens to its driver or the head.

    Args:
        shipment: is sent again when the driver has died or a new head knows nothing of it.
        job: as `submit_sweep` returned it.
        address: the head's job server.
        show: takes the output.
        say: takes what happens to the job, line by line.

    Returns:
        The exit code of the driver.

    Raises:
        BadInputError: the head was away for too long, or refuses the token.
    """
    shown, brief, begun = 0, 0, time.monotonic()
    while True:
        shown = _tail(job.job_id, address, show, skip=shown)
        details = _ask(address, partial(_details, job_id=job.job_id), away_s=HEAD_S, say=say)
        if details is not None and not _ended(details):
            continue
        code = None if details is None else _exit_code(details)
        if code is not None:
            return code
        never_ran = details is not None and details.driver_info is None
        brief = brief + 1 if never_ran or time.monotonic() - begun < BRIEF_S else 0
        if brief >= BRIEF_LIVES:
            say(f"job {job.job_id} died again, too soon to go on: {details and details.message}")
            return 1
        what = "the head has restarted" if details is None else "the driver has died"
        job = submit_sweep(shipment, address, away_s=HEAD_S)
        say(f"{what}; sweep {shipment.name} continues as job {job.job_id}")
        shown, begun = 0, time.monotonic()


def run_there(arguments: Sequence[str], parcel: Parcel, address: str, *, show: Say) -> int:
    """Run a posetune command on the head and show its output; return its exit code.

    Raises:
        BadInputError: nobody answers at the address, or it refuses the token.
    """
    job_id = f"posetune-{arguments[0]}-{uuid.uuid4().hex[:8]}"
    _ask(address, lambda client: _send(client, arguments, job_id=job_id, parcel=parcel))
    shown = 0

    def show_ours(text: str) -> None:
        show("".join(line for line in text.splitlines(True) if not _is_rays(line)))

    try:
        while True:
            shown = _tail(job_id, address, show_ours, skip=shown)
            details = _ask(address, lambda client: _details(client, job_id))
            if details is None or _ended(details):
                code = None if details is None else _exit_code(details)
                return 1 if code is None else code
    except KeyboardInterrupt:
        _ask(address, lambda client: client.stop_job(job_id))
        raise


def _ask(
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
            return call(_client(address))
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


def _client(address: str) -> JobSubmissionClient:
    check_ray()
    silence_clients()
    if "RAY_AUTH_MODE" not in os.environ and (
        os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    ):
        os.environ["RAY_AUTH_MODE"] = "token"
    return JobSubmissionClient(address)


def _submit(client: JobSubmissionClient, shipment: Shipment) -> ClusterJob:
    home = shipment.parcel.home
    left_behind = tuple(name for name in home.environment if name not in _environment(home))
    ours = [job for job in client.list_jobs() if (job.metadata or {}).get(SWEEP) == shipment.name]
    for job in ours:
        if not _ended(job) and job.submission_id:
            _refuse_another(job.submission_id, job.metadata or {}, shipment)
            return ClusterJob(job.submission_id, attached=True, left_behind=left_behind)
    arguments = ["sweep", "sweep.yaml", "--name", shipment.name]
    arguments += ["--store", shipment.store, "--address", "auto"]
    job_id = _send(
        client,
        arguments,
        job_id=f"posetune-{shipment.name}-{len(ours) + 1}",
        parcel=shipment.parcel,
        metadata={SWEEP: shipment.name, **_identity(shipment)},
    )
    return ClusterJob(job_id, attached=False, left_behind=left_behind)


def _identity(shipment: Shipment) -> dict[str, str]:
    """Return what a job runs and for whom, as its metadata say."""
    return {
        f"{SWEEP}.person": user_name(),
        f"{SWEEP}.home": str(shipment.parcel.home.folder),
        f"{SWEEP}.store": shipment.store,
        f"{SWEEP}.file": shipment.parcel.source[:FILE_CHARACTERS],
    }


def _refuse_another(job_id: str, there: Mapping[str, str], shipment: Shipment) -> None:
    """Refuse to attach to a running job that is not the one that was to be submitted.

    Args:
        job_id: the job.
        there: its metadata; what a job of an earlier posetune does not say is not compared.
        shipment: what was to be submitted.

    Raises:
        BadInputError: says what differs.
    """
    differences = []
    for key, ours in _identity(shipment).items():
        theirs, what = there.get(key, ours), key.removeprefix(f"{SWEEP}.")
        if theirs == ours:
            continue
        if what == "file":
            lines = difflib.unified_diff(
                theirs.splitlines(), ours.splitlines(), "running", "given", lineterm="", n=0
            )
            differences += ["its file is another:", *list(lines)[:DIFF_LINES]]
        else:
            differences.append(f"its {what} is {theirs}, this one's {ours}")
    if differences:
        raise BadInputError(
            f"sweep {shipment.name}: runs already as job {job_id}, which is another:\n  "
            + "\n  ".join(differences)
            + "\nGive another --name, or the command that the job was submitted with."
        )


def _send(
    client: JobSubmissionClient,
    arguments: Sequence[str],
    *,
    job_id: str,
    parcel: Parcel,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Start a job that runs a posetune command."""
    environment = {**_environment(parcel.home), CODE_FILE: "code.json"}
    environment[PERSON_VARIABLE] = this_person()
    if parcel.columns:
        environment["COLUMNS"] = str(parcel.columns)
    if parcel.trainable and parcel.trainable not in SHIPPED_TRAINABLES:
        # It is registered on this machine by being installed, and on the cluster by this variable.
        environment[TRAINABLES_VARIABLE] = parcel.trainable
    with tempfile.TemporaryDirectory(prefix="posetune-submit-") as folder:
        (Path(folder) / "sweep.yaml").write_text(parcel.source, encoding="utf-8")
        (Path(folder) / "code.json").write_text(json.dumps(code_of()), encoding="utf-8")
        return client.submit_job(
            entrypoint=shlex.join(["python", "-m", "posetune.cli", *arguments]),
            submission_id=job_id,
            metadata=dict(metadata or {}),
            runtime_env={
                "working_dir": folder,
                "py_modules": [str(path) for path in _packages(parcel.trainable)],
                "excludes": ["**/__pycache__"],
                "env_vars": environment,
            },
        )


def _details(client: JobSubmissionClient, job_id: str) -> JobDetails | None:
    """Return what a head knows of a job; None where it knows nothing, as after a restart."""
    try:
        return client.get_job_info(job_id)
    except RuntimeError as error:
        if "status code 404" in str(error):
            return None
        raise


def _ended(job: JobDetails) -> bool:
    return JobStatus(job.status).is_terminal()


def _exit_code(job: JobDetails) -> int | None:
    """Return a command's exit code; None where it did not end by itself."""
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if job.status == JobStatus.STOPPED:
        return 130
    code = job.driver_exit_code
    was_killed = code is None or code < 0 or (code > 128 and code != 130)
    return None if was_killed else code


def _tail(job_id: str, address: str, show: Say, *, skip: int) -> int:
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
        chunks = aiter(_client(address).tail_job_logs(job_id))
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


def _is_rays(line: str) -> bool:
    """Return whether Ray itself printed a line of a job's output, before the command began."""
    return line.startswith("Running entrypoint for job ") or " INFO job_manager.py:" in line


def _packages(trainable: str) -> list[Path]:
    """Return the folders of the packages that a job needs: the platform and the trainable."""
    names = dict.fromkeys(["posetune", trainable.partition(":")[0].partition(".")[0] or "posetune"])
    folders = []
    for name in names:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        folders.append(Path(spec.origin).parent)
    return folders


def _environment(home: Home) -> dict[str, str]:
    """Return the addresses for the job; those that hold a password must be set on the cluster."""
    return {
        name: value
        for name, value in home.environment.items()
        if "://" not in value or make_url(value).password is None
    }
