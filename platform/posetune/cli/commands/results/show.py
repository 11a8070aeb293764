"""`posetune show`: all sweeps, or one with its trials."""

from __future__ import annotations

from typing import Annotated

import typer

from posetune.cli.options import (
    AddressOption,
    HomeOption,
    JsonOption,
    OptionalSweepArgument,
)
from posetune.cli.relay import relay
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.notifications.delivery import count_waiting
from posetune.notifications.wording import notification_line, waiting_json
from posetune.report.sweep_json import as_json as view_json
from posetune.report.tables import next_steps, sweep_list, sweep_tables
from posetune.report.usage import cost_line, cost_of
from posetune.spec.home_file import read_home_file
from posetune.study.reading import list_sweeps, read_sweep
from posetune.study.tables.database import open_database

__all__ = ["show"]


def show(
    name: OptionalSweepArgument = None,
    home: HomeOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Show every trial.")] = False,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all sweeps, or one with its trials, baselines and shared stages.

    posetune show

    posetune show first --json

    posetune show big --address http://head:8265 --home /shared/runs
    """
    if address is not None:
        arguments = ["show", *([name] if name else []), *(["--all"] if all_ else [])]
        raise relay(*arguments, address=address, home=home, as_json=as_json)

    resolved = Home.resolve(home)
    database = open_database(resolved.database, create=False)
    if name is None:
        views = list_sweeps(database)
        if as_json:
            print_json({"sweeps": [view_json(view) for view in views]})
        else:
            console.print(sweep_list(views))
            console.print("Next: posetune show NAME")
        return
    view = read_sweep(database, name)
    waiting = count_waiting(database, name)
    file = read_home_file(resolved.folder)
    if as_json:
        cost = cost_of(view, file)
        waits = waiting_json(waiting)
        print_json({**view_json(view), "messages_waiting": waits, "cost": cost})
        return
    console.print(sweep_tables(view, most=len(view.trials) if all_ else 20))
    if spent := cost_line(view, file):
        console.print(f"cost so far: {spent}", soft_wrap=True, markup=False)
    if waiting:
        console.print(notification_line(waiting), soft_wrap=True, markup=False)
    console.print(f"Next: {next_steps(view, f' --home {home}' if home else '')}", soft_wrap=True)
