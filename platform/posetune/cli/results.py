"""`posetune show`, `track`, `stages` and `ui`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.options import (
    AddressOption,
    HomeOption,
    JsonOption,
    OptionalSweepArgument,
    SweepArgument,
)
from posetune.cli.relay import relay
from posetune.cli.screen import console, print_json

__all__ = ["show", "stages", "track", "ui"]


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
    from posetune.home import Home
    from posetune.report.tables import as_json as view_json
    from posetune.report.tables import next_steps, sweep_list, sweep_tables
    from posetune.study.database import open_database
    from posetune.study.view import list_sweeps, read_sweep

    database = open_database(Home.resolve(home).database, create=False)
    if name is None:
        views = list_sweeps(database)
        if as_json:
            print_json({"sweeps": [view_json(view) for view in views]})
        else:
            console.print(sweep_list(views))
            console.print("Next: posetune show NAME")
        return
    view = read_sweep(database, name)
    if as_json:
        print_json(view_json(view))
        return
    console.print(sweep_tables(view, most=len(view.trials) if all_ else 20))
    console.print(f"Next: {next_steps(view, f' --home {home}' if home else '')}", soft_wrap=True)


def track(name: SweepArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Bring MLflow up to date with a sweep; twice changes nothing.

    posetune track first
    """
    from posetune.home import Home
    from posetune.study.database import open_database

    resolved = Home.resolve(home)
    database = open_database(resolved.database, create=False)

    from posetune.tracking.connection import public_address  # imports MLflow, which takes seconds
    from posetune.tracking.projection import ship

    report = ship(database, name, resolved)
    if as_json:
        print_json(asdict(report))
    else:
        address = public_address(resolved.tracking)
        console.print(f"MLflow at {address} is up to date with {name}: {report}")


def stages(
    home: HomeOption = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Delete what is broken or no unfinished sweep has used."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the shared stage products, and prune them.

    posetune stages --prune
    """
    from rich.table import Table

    from posetune.home import Home
    from posetune.report.tables import format_params, format_seconds
    from posetune.stages.cache import StageCache
    from posetune.study.database import open_database
    from posetune.study.view import needed_stages

    resolved = Home.resolve(home)
    cache = StageCache(resolved.storage)
    pruned = []
    if prune:
        pruned = cache.prune(needed_stages(open_database(resolved.database, create=False)))
    entries = cache.entries()
    if as_json:
        print_json({"stages": [asdict(e) for e in entries], "pruned": [asdict(e) for e in pruned]})
        return
    table = Table("stage", "key", "state", "size", "took", "reads")
    for entry in entries:
        size = f"{entry.bytes / 1e6:.1f} MB"
        reads = format_params(dict(entry.reads))
        took = format_seconds(entry.seconds)
        table.add_row(entry.name, entry.key[:12], entry.state, size, took, reads)
    console.print(table)
    total = sum(entry.bytes for entry in entries)
    console.print(
        f"{len(entries)} products, {total / 1e6:.1f} MB below {resolved.storage.where('stages')}"
    )
    if prune:
        freed = sum(entry.bytes for entry in pruned)
        console.print(f"deleted {len(pruned)}, {freed / 1e6:.1f} MB")


def ui(
    home: HomeOption = None,
    host: Annotated[str, typer.Option(help="Address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 5000,
    as_json: JsonOption = False,
) -> None:
    """Open the MLflow UI on this home; Ctrl-C ends it.

    posetune ui --port 5001
    """
    from posetune.home import Home
    from posetune.tracking.ui import serve_ui

    resolved = Home.resolve(home)
    if not resolved.folder.is_dir():
        raise BadInputError(
            f"no home at {resolved.folder}: nothing has run there yet; name the one to show with "
            "--home (posetune sweep FILE makes one)"
        )
    say = _say_json if as_json else _say
    raise typer.Exit(serve_ui(resolved.prepare(), host=host, port=port, say=say))


def _say(state: str, what: str) -> None:
    lines = {"starting": "starting MLflow on {} (Ctrl-C ends it)", "running": "MLflow runs at {}"}
    print(lines.get(state, "MLflow ended: {}").format(what), flush=True)


def _say_json(state: str, what: str) -> None:
    """One line a state: the reader of a stream needs its ends."""
    print(
        json.dumps({"state": state, ("why" if state == "ended" else "address"): what}), flush=True
    )
