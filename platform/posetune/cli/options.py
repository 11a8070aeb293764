"""Defines the options that several commands share."""

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
    "MovedStoreOption",
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
    from posetune.study.reading import sweep_names
    from posetune.study.tables.database import open_database
    from posetune.visible import visible

    try:
        names = sweep_names(open_database(Home.resolve().database, create=False))
    except BadInputError:  # no home yet: nothing to offer, and a prompt is no place to say so
        return []
    # The shell prints them as they are, and a study may be somebody else's.
    return [name for name in names if name.startswith(incomplete) and visible(name) == name]


AddressOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Run the command on a cluster's head, through its job server (http://HEAD:8265); "
        "--home is then a path on the head.",
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
        help="Name of the sweep (default: the name of the file).",
        show_default=False,
        autocompletion=complete_sweep,
    ),
]
StoreOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Use this store instead of the sweep file's: a folder or s3://...",
        show_default=False,
    ),
]
MovedStoreOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Address of the sweep's store, if it has moved: a trial's model may have to be made "
        "with it.",
        show_default=False,
    ),
]
SweepFile: TypeAlias = Annotated[
    Path, typer.Argument(help="The sweep file; search_spaces/ has examples.")
]
SweepArgument: TypeAlias = Annotated[
    str, typer.Argument(help="Name of the sweep.", autocompletion=complete_sweep)
]
OptionalSweepArgument: TypeAlias = Annotated[
    str | None,
    typer.Argument(help="Name of the sweep.", autocompletion=complete_sweep, show_default=False),
]
ModelNameOption: TypeAlias = Annotated[
    str, typer.Option("--model", help="Name of the registered model.")
]
ModelArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        help="The model: models:/NAME@ALIAS, models:/NAME/NUMBER, SWEEP/TRIAL, or the folder of "
        "an exported model or of a checkpoint."
    ),
]
TrainableOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--trainable",
        help="The trainable whose model a folder or a version holds (package.module:Class).",
    ),
]
