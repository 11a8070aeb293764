"""Sends a command to a Ray head as a job: exactly the code, the sweep file, and no secret."""

from __future__ import annotations

import importlib.util
import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ray.job_submission import JobSubmissionClient
from sqlalchemy import make_url

from posetune.home import Home
from posetune.provenance import CODE_FILE, PERSON_VARIABLE, code_of, this_person
from posetune.spec.registration import SHIPPED_TRAINABLES, TRAINABLES_VARIABLE

__all__ = ["Parcel", "passed_on", "send"]


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


def send(
    client: JobSubmissionClient,
    arguments: Sequence[str],
    *,
    job_id: str,
    parcel: Parcel,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Start a job that runs a posetune command."""
    environment = {**passed_on(parcel.home), CODE_FILE: "code.json"}
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


def passed_on(home: Home) -> dict[str, str]:
    """Return the addresses for the job; those that hold a password must be set on the cluster."""
    return {
        name: value
        for name, value in home.environment.items()
        if "://" not in value or make_url(value).password is None
    }
