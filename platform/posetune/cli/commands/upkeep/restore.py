"""`posetune restore`: puts a backup into an empty home."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from posetune.cli.commands.upkeep.backup import TrackingOption, check_artifacts
from posetune.cli.counting import counted
from posetune.cli.options import HomeOption, JsonOption
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.study.tables.database import open_database
from posetune.workflow.restore import open_backup
from posetune.workflow.restore import restore as restore_backup

__all__ = ["restore"]


def restore(
    backup: Annotated[str, typer.Argument(help="The folder or s3://... of posetune backup.")],
    tracking: TrackingOption = True,
    artifacts: Annotated[
        str | None,
        typer.Option(
            "--artifacts",
            help="Where MLflow's files go, if it is a server's database that MLFLOW_TRACKING_URI "
            "names: a folder or s3://... (default: the home's mlartifacts).",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a backup into an empty home.

    Sweeps that were not at their end are continued by the command that started them. MLflow may
    be a little behind the study; that command, or posetune track, brings it up to date. A restore
    that was broken off is ended by the same command.

      posetune restore /backups/2026-11-30 --home other
      posetune restore s3://bucket/backups/2026-11-30 --home other --json
    """
    check_artifacts(tracking, artifacts)
    open_backup(backup)  # before a home is made for it
    resolved = Home.resolve(home).prepare()
    found = restore_backup(
        open_database(resolved.database), resolved, backup, tracking=tracking, artifacts=artifacts
    )
    if as_json:
        print_json(asdict(found))
        return
    for folder in found.missing:
        console.print(f"not in the backup: {folder}", soft_wrap=True, markup=False)
    console.print(
        f"{counted(len(found.sweeps), 'sweep')} restored, "
        f"{'with' if found.mlflow else 'without'} MLflow: "
        f"{', '.join(found.sweeps)}",
        soft_wrap=True,
        markup=False,
    )
    flag = f" --home {home}" if home else ""
    console.print(f"Next: posetune show{flag}", soft_wrap=True, markup=False)
