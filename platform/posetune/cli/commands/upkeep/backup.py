"""`posetune backup`: a whole home in one place, while its sweeps run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.acting import study_of
from posetune.cli.options import HomeOption, JsonOption
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.provenance import this_person
from posetune.workflow.backup import back_up

__all__ = ["TrackingOption", "backup", "check_artifacts"]

TrackingOption = Annotated[
    bool, typer.Option("--tracking/--no-tracking", help="Whether MLflow is part of it.")
]


def check_artifacts(tracking: bool, artifacts: str | None) -> None:
    """Refuse an address of MLflow's files where MLflow is left out.

    Raises:
        BadInputError: one option says what the other one excludes.
    """
    if artifacts is not None and not tracking:
        raise BadInputError(f"--artifacts {artifacts}: needs MLflow; leave out --no-tracking")


def backup(
    to: Annotated[
        str, typer.Option("--to", help="A new folder, or s3://BUCKET/PREFIX, for the backup.")
    ],
    tracking: TrackingOption = True,
    artifacts: Annotated[
        str | None,
        typer.Option(
            "--artifacts",
            help="Where MLflow's files lie, if it is a server's database that MLFLOW_TRACKING_URI "
            "names: a folder or s3://... (default: the home's mlartifacts).",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Back up the study, what it names in storage, and MLflow, while sweeps run.

    A backup that was broken off is ended by the same command. Stores of data are no part of it.
    posetune restore puts it into any empty home, on SQLite or PostgreSQL, in a folder or on S3.

      posetune backup --to /backups/2026-11-30
      posetune backup --to s3://bucket/backups/2026-11-30 --json
    """
    check_artifacts(tracking, artifacts)
    made = back_up(
        study_of(home),
        Home.resolve(home),
        to,
        tracking=tracking,
        artifacts=artifacts,
        by=this_person(),
    )
    if as_json:
        print_json(asdict(made))
        return
    for folder in made.missing:
        console.print(f"not in storage any more, or damaged: {folder}", markup=False)
    console.print(
        f"{made.address}: {made.sweeps} sweeps, {made.trials} trials, {made.checkpoints} "
        f"checkpoints, {made.stages} stage products, {'with' if made.mlflow else 'without'} MLflow",
        soft_wrap=True,
        markup=False,
    )
    console.print(f"Next: posetune restore {made.address} --home OTHER", soft_wrap=True)
