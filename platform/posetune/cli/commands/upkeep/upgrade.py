"""`posetune upgrade`: brings a study of a version before to the tables of today."""

from __future__ import annotations

from posetune.cli.options import HomeOption, JsonOption
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.study.old import upgrade as study_upgrade
from posetune.study.tables.database import open_database

__all__ = ["upgrade"]


def upgrade(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Bring a study that an earlier posetune wrote to the tables of today.

    No driver may be live. A SQLite study is copied first, and the first driver that continues one
    of its sweeps upgrades it anyway; make a backup of a PostgreSQL database before (pg_dump).

      posetune upgrade --home runs
    """
    database = open_database(Home.resolve(home).database, create=False)
    needed = study_upgrade.needs_upgrade(database)
    copy = study_upgrade.upgrade(database)
    if as_json:
        copied = None if copy is None else str(copy)
        print_json({"study": database.address, "upgraded": needed, "copy": copied})
    elif not needed:
        console.print(f"study database {database.address}: has the tables of today already")
    else:
        kept = f"; as it was, it is in {copy}" if copy else ""
        console.print(f"study database {database.address}: upgraded{kept}", soft_wrap=True)
