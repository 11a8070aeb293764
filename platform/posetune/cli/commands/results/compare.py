"""`posetune compare`: sweeps or trials side by side."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.options import HomeOption, JsonOption, complete_sweep
from posetune.cli.screen import console, print_json, progress_bar
from posetune.home import Home
from posetune.report.comparison import (
    Compared,
    comparison_json,
    comparison_tables,
    evaluate_for_comparison,
)
from posetune.report.comparison import compare as side_by_side
from posetune.study.reading import read_sweep
from posetune.study.tables.database import Database, open_database

__all__ = ["compare"]


def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Two or more sweeps or trials, each as SWEEP or SWEEP/TRIAL.",
            autocompletion=complete_sweep,
        ),
    ],
    evaluate: Annotated[
        bool,
        typer.Option(
            help="Evaluate the models on the whole validation split, which gives intervals."
        ),
    ] = True,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare sweeps (by their best trials) or trials: settings, data, code, metrics.

    posetune compare first second

    posetune compare first/0 first/6 --no-evaluate
    """
    if len(set(names)) < 2:
        raise BadInputError(f"compare {' '.join(names)}: name two or more sweeps or trials")
    resolved = Home.resolve(home)
    database = open_database(resolved.database, create=False)
    columns = [_find(database, name) for name in dict.fromkeys(names)]
    if evaluate:
        with progress_bar("evaluate", quiet=as_json) as progress:
            columns = [evaluate_for_comparison(c, resolved.storage, progress) for c in columns]
    found = side_by_side(columns)
    if as_json:
        print_json(comparison_json(found))
    else:
        console.print(comparison_tables(found))


def _find(database: Database, name: str) -> Compared:

    sweep, separator, number = name.partition("/")
    view = read_sweep(database, sweep)
    if not separator:
        return Compared(name, view, view.best)
    if not re.fullmatch(r"\d{1,9}", number) or int(number) >= len(view.trials):
        raise BadInputError(
            f"{name}: there is no such trial; sweep {sweep} has {len(view.trials)}, numbered from 0"
        )
    return Compared(name, view, view.trials[int(number)])
