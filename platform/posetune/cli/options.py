"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = [
    "AddressOption",
    "AnyTrainableArgument",
    "HomeOption",
    "JsonOption",
    "ModelArgument",
    "ModelNameOption",
    "NameOption",
    "OptionalSweepArgument",
    "StoreOption",
    "SweepArgument",
    "SweepFile",
    "TrainableOption",
    "complete_sweep",
]


def complete_sweep(incomplete: str) -> list[str]:
    """Return the sweeps of the default home whose names begin so, for the shell's completion."""
    from posetune.api import BadInputError
    from posetune.home import Home
    from posetune.study.database import open_database
    from posetune.study.view import sweep_names

    try:
        names = sweep_names(open_database(Home.resolve().database, create=False))
    except BadInputError:  # no home yet: nothing to offer, and a prompt is no place to say so
        return []
    return [name for name in names if name.startswith(incomplete)]


AddressOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Ask on a cluster's head, by its job server (http://HEAD:8265); --home is a path "
        "there then.",
        show_default=False,
    ),
]
AnyTrainableArgument: TypeAlias = Annotated[
    str, typer.Argument(help="A trainable, as package.module:Class.")
]
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
    typer.Option(
        "--name",
        help="The sweep's name (default: the file's).",
        show_default=False,
        autocompletion=complete_sweep,
    ),
]
StoreOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Prepared data, a folder or s3://...; overrides the file's.",
        show_default=False,
    ),
]
SweepFile: TypeAlias = Annotated[Path, typer.Argument(help="A sweep file, see search_spaces/.")]
SweepArgument: TypeAlias = Annotated[
    str, typer.Argument(help="A sweep's name.", autocompletion=complete_sweep)
]
OptionalSweepArgument: TypeAlias = Annotated[
    str | None,
    typer.Argument(help="A sweep's name.", autocompletion=complete_sweep, show_default=False),
]
ModelNameOption: TypeAlias = Annotated[
    str, typer.Option("--model", help="The registered model's name.")
]
ModelArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        help="models:/NAME@ALIAS, models:/NAME/NUMBER, SWEEP/TRIAL, or the folder of an exported "
        "model."
    ),
]
TrainableOption: TypeAlias = Annotated[
    str, typer.Option("--trainable", help="Whose model a folder or version holds.")
]
