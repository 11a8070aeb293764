"""`posetune delete`: deletes a sweep."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.acting import study_of
from posetune.cli.options import HomeOption, JsonOption, SweepArgument
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.provenance import this_person
from posetune.visible import visible
from posetune.workflow.delete import WhatGoes, delete_sweep, what_goes

__all__ = ["delete"]


def delete(
    name: SweepArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    owner: Annotated[
        str,
        typer.Option(help="Whose sweep it is, where it is somebody else's: NAME or NAME@HOST."),
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a sweep from its study, with its checkpoints and logs.

    It is refused while a driver is at work, and while an alias points at a version of the sweep.
    Runs in MLflow, registered versions and shared stage products stay. What was broken off is ended
    by the same command.

      posetune archive first --to first.tar

      posetune delete first --yes
    """
    database = study_of(home)
    goes = what_goes(database, name)
    _check_owner(goes, owner)
    if not yes:
        if as_json:
            raise BadInputError("--json: nobody can be asked; give --yes with it")
        typer.confirm(visible(_question(goes)), abort=True, err=True)
    found = delete_sweep(database, Home.resolve(home), name, by=this_person())
    if as_json:
        print_json({**asdict(found), "left": _left(goes)})
        return
    console.print(
        f"sweep {name}: deleted, {found.trials} trials, {found.bytes / 1e6:.1f} MB of checkpoints",
        soft_wrap=True,
        markup=False,
    )
    if found.marked_runs:
        console.print(f"its {found.marked_runs} runs stay in MLflow, tagged posetune.deleted")
    if found.forgotten_messages:
        console.print(f"{found.forgotten_messages} messages about it were never sent")
    if goes.stages:
        console.print(
            f"{goes.stages} stage products were used by no other sweep: posetune stages --prune",
            soft_wrap=True,
        )


def _check_owner(goes: WhatGoes, said: str) -> None:
    """Let nobody delete a colleague's sweep by mistake."""
    person = this_person().partition("@")[0]
    theirs = goes.owner.partition("@")[0]
    if said:
        if said not in (goes.owner, theirs):
            raise BadInputError(
                f"--owner {said}: sweep {goes.sweep} was started by {goes.owner or 'nobody known'}"
            )
    elif theirs and theirs != person:
        raise BadInputError(
            f"sweep {goes.sweep}: was started by {goes.owner}, and you are {person}; ask them, or "
            f"say whose it is (--owner {theirs})"
        )


def _question(goes: WhatGoes) -> str:
    copies = ", ".join(goes.learned_from_by)
    learned = f" ({copies} started from it and keeps copies of its trials)" if copies else ""
    return (
        f"Delete sweep {goes.sweep}: {goes.trials} trials with {goes.epochs} epochs, and "
        f"{goes.bytes / 1e6:.1f} MB of checkpoints{learned}?"
    )


def _left(goes: WhatGoes) -> dict[str, object]:
    return {"runs": goes.runs, "stages": goes.stages, "learned_from_by": goes.learned_from_by}
