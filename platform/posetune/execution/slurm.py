"""Submits a sweep to Slurm: fills in the script `sweep.sbatch` and sends it with sbatch.

The job starts a Ray of its own across its nodes, with the driver on the first. Its name is the
sweep's, so the same sweep is found in the queue and not submitted twice; its comment says what it
runs, so another sweep of that name is told from it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from posetune.api import BadInputError
from posetune.home import Home
from posetune.spec.sweep import Resources

__all__ = [
    "SlurmJob",
    "SubmittedJob",
    "check_same",
    "job_comment",
    "job_script",
    "node_options",
    "sbatch_command",
    "submit_job",
]

TEMPLATE = Path(__file__).with_name("sweep.sbatch")

FOLDER = "slurm"
"""Folder below the home for the scripts and the output of jobs."""

_DIRECTIVE = "#SBATCH "
_FIRST_COMMAND = "set -euo pipefail\n"
_VALUE = re.compile(r"[\w.,:@+/=-]+", re.ASCII)


@dataclass(frozen=True)
class SlurmJob:
    """A sweep that is to run as a job of Slurm."""

    file: Path
    """The sweep file; the nodes must see it."""
    name: str
    """Name of the sweep."""
    store: str
    """Address of the store: a folder that every node sees, or s3://..."""
    home: Home
    """The home; every node must see its folder."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Options of sbatch by their long names, instead of those that the script has."""

    @property
    def job_name(self) -> str:
        """Name of the job in Slurm."""
        return f"posetune-{self.name}"

    @property
    def script(self) -> Path:
        """Where the job's script is written."""
        return self.home.folder / FOLDER / f"{self.name}.sbatch"

    def log(self, job_id: str) -> str:
        """Return the path of the output of a job."""
        return f"{self.home.folder / FOLDER / self.name}-{job_id}.log"


@dataclass(frozen=True)
class SubmittedJob:
    """A job that Slurm has."""

    job_id: str
    attached: bool
    """Whether the job was there already."""
    script: str
    """Path of the script."""
    log: str
    """Path of the output."""


def node_options(
    resources: Resources, gpus_per_node: str | None, cpus_per_task: int | None
) -> dict[str, str]:
    """Return the options of sbatch that say what a job takes of each node.

    Args:
        resources: what one trial takes.
        gpus_per_node: a number of GPUs, or TYPE:NUMBER.
        cpus_per_task: number of CPUs of a node; None takes what the trials need that its GPUs hold,
            or one trial where it has none.

    Raises:
        BadInputError: a node would not hold a trial.
    """
    # Ray itself gives every node those of ray.io.
    labels = [label for label in resources.labels if not label.startswith("ray.io/")]
    if labels:
        raise BadInputError(
            f"--slurm: a trial asks for a node with the label {labels[0]} (resources.labels in the "
            "sweep file), which no node of a job of Slurm has; leave it out, and choose nodes by "
            "--partition or --gpus-per-node TYPE:NUMBER"
        )
    number = (gpus_per_node or "0").rpartition(":")[2]
    if not number.isdecimal():
        raise BadInputError(
            f"--gpus-per-node {gpus_per_node}: must be a number of GPUs, or TYPE:NUMBER"
        )
    gpus = int(number)
    if resources.gpu > gpus:
        raise BadInputError(
            f"--gpus-per-node {gpus}: a trial takes gpu {resources.gpu:g} (resources in the sweep "
            f"file), so no node could hold one; ask for {math.ceil(resources.gpu)} or more"
        )
    trials = max(1, math.floor(gpus / resources.gpu)) if resources.gpu else 1
    # One trial builds a stage, while those that wait for it leave their CPUs idle.
    needed = max(resources.cpu * trials, resources.stage_cpu or 0)
    cpus = math.ceil(needed) if cpus_per_task is None else cpus_per_task
    if resources.cpu > cpus:
        raise BadInputError(
            f"--cpus-per-task {cpus}: a trial takes cpu {resources.cpu:g} (resources in the sweep "
            f"file), so no node could hold one; ask for {math.ceil(resources.cpu)} or more"
        )
    return {
        "cpus-per-task": str(cpus),
        **({"gpus-per-node": gpus_per_node} if gpus_per_node else {}),
    }


def job_script(job: SlurmJob) -> str:
    """Return the script of a job.

    Raises:
        BadInputError: an option holds a character that Slurm gives no meaning.
    """
    for name, value in job.options.items():
        if not _VALUE.fullmatch(value):
            raise BadInputError(f"--{name} {value!r}: Slurm has no such value")
    head, command, body = TEMPLATE.read_text(encoding="utf-8").partition(_FIRST_COMMAND)
    given = {"job-name": job.job_name, "output": f'"{_output(job)}"', **job.options}
    lines = [
        line
        for line in head.splitlines()
        if _option(line) not in given  # one given once, because Slurms differ in which one counts
    ]
    lines += [f"{_DIRECTIVE}--{name}={value}" for name, value in given.items()]
    settings = [
        f"export VENV={shlex.quote(sys.prefix)} POSETUNE_HOME={shlex.quote(str(job.home.folder))}",
        shlex.join(["set", "--", str(job.file.absolute()), job.name, job.store]),
    ]
    return "\n".join([*lines, command + "\n".join(settings), body])


def job_comment(job: SlurmJob) -> str:
    """Return what a job runs, as its comment in Slurm says it."""
    return json.dumps(_identity(job), ensure_ascii=False)


def check_same(job: SlurmJob, job_id: str, comment: str) -> None:
    """Check that the job in Slurm that has a job's name is the same one.

    Args:
        job: the job that was to be submitted.
        job_id: the one that is there.
        comment: its comment.

    Raises:
        BadInputError: says what differs.
    """
    try:
        said = json.loads(comment)
    except ValueError:
        said = None
    there = said if isinstance(said, dict) else {}
    differences = []
    for what, ours in _identity(job).items():
        theirs = there.get(what, "not known")
        if theirs == ours:
            continue
        if what == "script":
            differences.append(
                f"its script is another (`scontrol write batch_script {job_id} -` prints it, "
                "--dry-run this one's)"
            )
        else:
            differences.append(f"its {what} is {theirs}, this one's {ours}")
    if differences:
        raise BadInputError(
            f"sweep {job.name}: is in Slurm already as job {job_id}, which is another: "
            f"{'; '.join(differences)}; give another --name, or the command that the job was "
            "submitted with"
        )


def sbatch_command(job: SlurmJob) -> list[str]:
    """Return the command that submits a job's script.

    It says again what the script says: SBATCH_PARTITION and others of the user's shell count more
    than a script, and less than a command.
    """
    head = job_script(job).partition(_FIRST_COMMAND)[0]
    options = [
        line.removeprefix(_DIRECTIVE)
        for line in head.splitlines()
        if _option(line) not in (None, "output")
    ]
    # In the script it stands in quotation marks.
    options += [f"--output={_output(job)}", f"--comment={job_comment(job)}"]
    return ["sbatch", "--parsable", *options, str(job.script)]


def submit_job(job: SlurmJob) -> SubmittedJob:
    """Write a job's script and submit it; or find the job of this sweep that is there.

    Raises:
        BadInputError: there is no Slurm on this machine, it refuses the job, or it has another one
            of this name.
    """
    script = job_script(job)
    queued = _ask("squeue", "--me", "--noheader", f"--name={job.job_name}", "--format=%i %k")
    if queued:
        job_id, _, comment = queued.splitlines()[0].partition(" ")
        check_same(job, job_id, comment)
    else:
        job.home.prepare()
        job.script.parent.mkdir(exist_ok=True)
        job.script.write_text(script, encoding="utf-8")
        # NUMBER, or NUMBER;CLUSTER where there are several.
        job_id = _ask(*sbatch_command(job)).split(";")[0]
    return SubmittedJob(
        job_id=job_id,
        attached=bool(queued),
        script=str(job.script),
        log=job.log(job_id),
    )


def _identity(job: SlurmJob) -> dict[str, str]:
    """Return what tells a job from others of its name."""
    return {
        "home": str(job.home.folder),
        "file": str(job.file.absolute()),
        "store": job.store,
        "script": hashlib.sha256(job_script(job).encode()).hexdigest()[:16],
    }


def _output(job: SlurmJob) -> str:
    """Return the path of a job's output as Slurm reads it: % is its sign for the job's number."""
    folder = str(job.home.folder / FOLDER).replace("%", "%%")
    return f"{folder}/{job.name}-%j.log"


def _option(line: str) -> str | None:
    """Return the name of the option that a line of a script gives to sbatch, if it does."""
    if not line.startswith(_DIRECTIVE):
        return None
    return line.removeprefix(_DIRECTIVE).lstrip("-").partition("=")[0]


def _ask(*command: str) -> str:
    """Run a program of Slurm and return what it says."""
    try:
        asked = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise BadInputError(
            f"--slurm: there is no {command[0]} on this machine; run the command on a login node "
            "of a Slurm cluster, or add --dry-run to see the script"
        ) from error
    if asked.returncode:
        line = (asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"])[-1]
        raise BadInputError(f"--slurm: {line}; --dry-run shows the script that was to be submitted")
    return asked.stdout.strip()
