"""`posetune rollback`: points an alias at the version before."""

from __future__ import annotations

from typing import Annotated

import typer

from posetune.cli.options import HomeOption, JsonOption, ModelNameOption
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.provenance import this_person

__all__ = ["rollback"]


def rollback(
    model: ModelNameOption,
    alias: Annotated[
        str, typer.Option("--alias", help="The alias to point at an earlier version.")
    ] = "champion",
    to: Annotated[
        int | None,
        typer.Option(help="The version to point it at (default: the one before).", min=1),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Point an alias at the version that it pointed at before.

    posetune rollback --model selfpose --alias champion
    """
    from posetune.promotion.aliases import roll_back

    before, now = roll_back(Home.resolve(home), model=model, alias=alias, to=to, by=this_person())
    if as_json:
        print_json({"model": model, "alias": alias, "from": before, "to": now})
    else:
        console.print(f"{model}@{alias}: version {now} again, instead of {before}")
