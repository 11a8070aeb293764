"""`posetune stages`: lists and prunes the shared stage products."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from posetune.cli.options import (
    HomeOption,
    JsonOption,
)
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.report.wording import format_params, format_seconds
from posetune.stages.cache import StageCache
from posetune.study.reading import needed_stages
from posetune.study.tables.database import open_database

__all__ = ["stages"]


def stages(
    home: HomeOption = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Delete products that are broken or that no unfinished sweep has used."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the shared stage products, and prune them.

    posetune stages --prune
    """
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
