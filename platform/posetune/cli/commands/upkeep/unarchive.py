"""`posetune unarchive`: puts an archived sweep into a study."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.options import HomeOption, JsonOption
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.provenance import this_person
from posetune.study.tables.database import open_database
from posetune.workflow.archive import import_sweep

__all__ = ["unarchive"]


def unarchive(
    file: Annotated[Path, typer.Argument(help="The file that posetune archive wrote.")],
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="Name of the sweep here (default: its own).", show_default=False
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put an archived sweep into a study.

    It is there as it was: it can be shown, compared and promoted, and continued if it was not at
    its end. Runs in MLflow are made by posetune track. An import that was broken off is ended by
    the same command.

      posetune unarchive first.tar --home other

      posetune unarchive first.tar --name first-of-ana
    """
    if not file.is_file():  # before a home is made for it
        raise BadInputError(f"{file}: there is no such file")
    resolved = Home.resolve(home).prepare()
    database = open_database(resolved.database)
    found = import_sweep(database, resolved, file, name=name, by=this_person())
    if as_json:
        print_json(asdict(found))
        return
    for folder in found.missing:
        console.print(f"not in the archive: {folder}", soft_wrap=True, markup=False)
    console.print(
        f"sweep {found.sweep}: {found.trials} trials, {found.checkpoints} checkpoints",
        soft_wrap=True,
        markup=False,
    )
    flag = f" --home {home}" if home else ""
    console.print(f"Next: posetune show {found.sweep}{flag}", soft_wrap=True, markup=False)
