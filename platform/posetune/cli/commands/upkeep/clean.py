"""`posetune clean`: deletes the sweeps that the home's retention rule does not keep."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from posetune.api import BadInputError
from posetune.cli.acting import study_of
from posetune.cli.options import HomeOption, JsonOption
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.provenance import this_person
from posetune.spec.home_file import HOME_FILE, read_home_file
from posetune.visible import visible
from posetune.workflow.clean import Judged, judge
from posetune.workflow.delete import delete_sweep

__all__ = ["clean"]


def clean(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    everybody: Annotated[
        bool, typer.Option("--everybody", help="Also delete the sweeps of other persons.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete the sweeps that the retention rule in the home's posetune.yaml does not keep.

    Nothing is deleted without this command. Each sweep goes as posetune delete takes it away: one
    that an alias points at stays, and so does what others need.

      posetune clean --dry-run

      posetune clean --yes
    """
    resolved = Home.resolve(home)
    rule = read_home_file(resolved.folder).retention
    if rule is None:
        raise BadInputError(
            f"{resolved.folder / HOME_FILE}: has no retention rule; write e.g. "
            "retention: {older_than: 90d}"
        )
    if as_json and not (yes or dry_run):
        raise BadInputError("--json: nobody can be asked; give --yes or --dry-run with it")
    database, by = study_of(home), this_person()
    found = judge(database, resolved, rule, now=time.time(), by=by, everybody=everybody)
    going = [one for one in found if not one.kept]
    if not as_json:
        console.print(_table(found))
    if going and not (dry_run or yes):
        typer.confirm(visible(f"Delete {len(going)} sweeps?"), abort=True, err=True)
    deleted: list[str] = []
    refused: dict[str, str] = {}
    for one in [] if dry_run else going:
        try:
            deleted.append(delete_sweep(database, resolved, one.sweep, by=by).sweep)
        except BadInputError as error:
            refused[one.sweep] = str(error)
    if as_json:
        sweeps = [asdict(one) for one in found]
        print_json({"sweeps": sweeps, "deleted": deleted, "refused": refused})
    else:
        _say(going, deleted, refused, dry_run=dry_run)
    raise typer.Exit(1 if refused else 0)


def _say(
    going: list[Judged], deleted: list[str], refused: dict[str, str], *, dry_run: bool
) -> None:
    if dry_run:
        freed = sum(one.bytes for one in going) / 1e6
        console.print(f"{len(going)} sweeps would be deleted, {freed:.1f} MB of checkpoints")
        return
    console.print(f"{len(deleted)} sweeps were deleted")
    for why in refused.values():
        console.print(why, soft_wrap=True, markup=False)


def _table(found: list[Judged]) -> Table:
    table = Table("sweep", "owner", "last event", "trials", "MB", "", box=SIMPLE)
    for one in found:
        at = datetime.fromtimestamp(one.last_at).astimezone().strftime("%Y-%m-%d")
        what = f"stays: {one.kept}" if one.kept else "goes"
        counts = str(one.trials), f"{one.bytes / 1e6:.1f}"
        table.add_row(Text(one.sweep), Text(one.owner), at, *counts, Text(what))
    return table
