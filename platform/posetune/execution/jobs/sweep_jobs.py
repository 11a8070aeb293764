"""Runs sweeps on a Ray cluster as jobs.

A sweep's job is `posetune sweep` on the head. The same name finds the job that runs, or starts a
new one which continues the sweep from its study; so submitting twice never makes two sweeps, and
following one may submit it again when its driver or the head has died.
"""

from __future__ import annotations

import difflib
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ray.job_submission import JobSubmissionClient

from posetune.api import BadInputError
from posetune.execution.jobs.job_server import (
    Say,
    ask,
    details_of,
    exit_code,
    has_ended,
    is_rays,
    tail,
)
from posetune.execution.jobs.parcel import Parcel, passed_on, send
from posetune.provenance import user_name

__all__ = [
    "HEAD_S",
    "Begun",
    "ClusterJob",
    "Shipment",
    "await_start",
    "follow_sweep",
    "run_there",
    "submit_sweep",
]

HEAD_S = 600.0
"""Seconds for which `follow_sweep` waits for a head that is away."""

START_S = 90.0
"""Seconds for which `await_start` waits until the driver says where its MLflow run is."""

BRIEF_S = 60.0
"""Seconds that a driver must live for its death not to count as brief."""

BRIEF_LIVES = 3
"""Number of brief lives of drivers in a row after which a sweep is not submitted again."""

SWEEP = "posetune.sweep"

FILE_CHARACTERS = 20_000
"""How much of a sweep file a job's metadata hold, to be compared with another."""

DIFF_LINES = 40
"""Lines of the difference between two files that are shown."""


@dataclass(frozen=True)
class Shipment:
    """A sweep that is sent to a cluster."""

    name: str
    parcel: Parcel
    store: str
    """Address of the store on the cluster: a folder that its head sees, or s3://..."""


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
    return ask(address, lambda client: _submit(client, shipment), away_s=away_s)


def await_start(job: ClusterJob, address: str, sign: str) -> Begun:
    """Wait at most `START_S` until a job has printed `sign` or has ended."""
    deadline = time.monotonic() + START_S
    while True:
        log = ask(address, lambda client: client.get_job_logs(job.job_id))
        details = ask(address, lambda client: details_of(client, job.job_id))
        code = exit_code(details) if details and has_ended(details) else None
        is_over = details is None or has_ended(details)
        if sign in log or is_over or time.monotonic() > deadline:
            return Begun(log, 1 if is_over and code is None else code)
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
        shown = tail(job.job_id, address, show, skip=shown)
        details = ask(address, partial(details_of, job_id=job.job_id), away_s=HEAD_S, say=say)
        if details is not None and not has_ended(details):
            continue
        code = None if details is None else exit_code(details)
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
    ask(address, lambda client: send(client, arguments, job_id=job_id, parcel=parcel))
    shown = 0

    def show_ours(text: str) -> None:
        show("".join(line for line in text.splitlines(True) if not is_rays(line)))

    try:
        while True:
            shown = tail(job_id, address, show_ours, skip=shown)
            details = ask(address, lambda client: details_of(client, job_id))
            if details is None or has_ended(details):
                code = None if details is None else exit_code(details)
                return 1 if code is None else code
    except KeyboardInterrupt:
        ask(address, lambda client: client.stop_job(job_id))
        raise


def _submit(client: JobSubmissionClient, shipment: Shipment) -> ClusterJob:
    home = shipment.parcel.home
    left_behind = tuple(name for name in home.environment if name not in passed_on(home))
    ours = [job for job in client.list_jobs() if (job.metadata or {}).get(SWEEP) == shipment.name]
    for job in ours:
        if not has_ended(job) and job.submission_id:
            _refuse_another(job.submission_id, job.metadata or {}, shipment)
            return ClusterJob(job.submission_id, attached=True, left_behind=left_behind)
    arguments = ["sweep", "sweep.yaml", "--name", shipment.name]
    arguments += ["--store", shipment.store, "--address", "auto"]
    job_id = send(
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
