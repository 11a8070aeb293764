"""`posetune track`: brings MLflow up to date with a sweep."""

from __future__ import annotations

from dataclasses import asdict

from posetune.cli.options import (
    HomeOption,
    JsonOption,
    SweepArgument,
)
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.study.tables.database import open_database

__all__ = ["track"]


def track(name: SweepArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Bring MLflow up to date with a sweep; a second call changes nothing.

    posetune track first
    """
    resolved = Home.resolve(home)
    database = open_database(resolved.database, create=False)

    from posetune.tracking.projection import ship

    # Imports MLflow, which takes seconds.
    from posetune.tracking.server.connection import public_address

    report = ship(database, name, resolved)
    if as_json:
        print_json(asdict(report))
    else:
        address = public_address(resolved.tracking)
        console.print(f"MLflow at {address} is up to date with {name}: {report}")
