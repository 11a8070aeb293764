"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = ["HomeOption", "JsonOption", "NameOption", "StoreOption", "SweepFile"]

HomeOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="Where studies, checkpoints and tracking live (default: $POSETUNE_HOME, or runs).",
        show_default=False,
    ),
]
JsonOption: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object.")
]
NameOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--name", help="The sweep's name (default: the file's).", show_default=False),
]
StoreOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--store", help="Prepared data; overrides the file's.", show_default=False),
]
SweepFile: TypeAlias = Annotated[Path, typer.Argument(help="A sweep file, see search_spaces/.")]
