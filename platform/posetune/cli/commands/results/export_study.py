"""`posetune export-study`: a sweep as an Optuna study."""

from __future__ import annotations

from typing import Annotated

import typer

from posetune.cli.options import HomeOption, JsonOption, SweepArgument
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.report.optuna_storage import export_study as write
from posetune.study.reading import read_sweep
from posetune.study.tables.database import open_database

__all__ = ["export_study"]


def export_study(
    name: SweepArgument,
    to: Annotated[
        str, typer.Option("--to", help="Storage to write: sqlite:///FILE or postgresql://...")
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a sweep as an Optuna storage, for optuna-dashboard.

    posetune export-study first --to sqlite:///optuna.db
    """
    view = read_sweep(open_database(Home.resolve(home).database, create=False), name)
    address = write(view, to)
    if as_json:
        print_json({"study": name, "storage": address, "trials": len(view.trials)})
        return
    console.print(f"study {name} with {len(view.trials)} trials: {address}", soft_wrap=True)
    console.print(f"Next: optuna-dashboard {address}", soft_wrap=True)
