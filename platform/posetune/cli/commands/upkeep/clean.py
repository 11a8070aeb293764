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
from posetune.cli.counting import counted
from posetune.cli.options import HomeOption, JsonOption
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.provenance import this_person
from posetune.spec.home_file import HOME_FILE, read_home_file
from posetune.workflow.clean import Cleaning, Judged
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
    cleaning = Cleaning(database, resolved, rule, by=by, everybody=everybody)
    found = cleaning.judge(now=time.time())
    going = [one for one in found if not one.kept]
    if not as_json:
        console.print(_table(found))
    if going and not (dry_run or yes):
        typer.confirm(f"Delete {counted(len(going), 'sweep')}?", abort=True, err=True)
    deleted: list[str] = []
    staying: dict[str, Judged] = {}
    refused: dict[str, str] = {}
    for one in [] if dry_run else going:
        try:
            # The question may have stood open for hours, and the sweep may be wanted again.
            again = cleaning.judge_again(one.sweep, now=time.time())
            if again.kept:
                staying[one.sweep] = again
            else:
                deleted.append(delete_sweep(database, resolved, one.sweep, by=by).sweep)
        except BadInputError as error:
            refused[one.sweep] = str(error)
    if as_json:
        sweeps = [asdict(staying.get(one.sweep, one)) for one in found]
        print_json({"sweeps": sweeps, "deleted": deleted, "refused": refused})
    elif dry_run:
        freed = sum(one.bytes for one in going) / 1e6
        console.print(
            f"{counted(len(going), 'sweep')} would be deleted, {freed:.1f} MB of checkpoints"
        )
    else:
        _say(deleted, staying, refused)
    raise typer.Exit(1 if refused else 0)


def _say(deleted: list[str], staying: dict[str, Judged], refused: dict[str, str]) -> None:
    console.print(f"{counted(len(deleted), 'sweep')} deleted")
    for one in staying.values():
        console.print(f"sweep {one.sweep}: stays after all: {one.kept}", soft_wrap=True)
    for why in refused.values():
        console.print(why, soft_wrap=True, markup=False)


def _table(found: list[Judged]) -> Table:
    table = Table("sweep", "owner", "last event", "trials", "MB", "by the rule", box=SIMPLE)
    for one in found:
        at = datetime.fromtimestamp(one.last_at).astimezone().strftime("%Y-%m-%d")
        what = f"stays: {one.kept}" if one.kept else "goes"
        counts = str(one.trials), f"{one.bytes / 1e6:.1f}"
        table.add_row(Text(one.sweep), Text(one.owner), at, *counts, Text(what))
    return table
