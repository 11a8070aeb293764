"""Asks for an act on a sweep and says what has become of it: what the steering commands share."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from posetune.api import BadInputError
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.provenance import this_person
from posetune.spec.documents import read_value
from posetune.study.acts.act import Act
from posetune.study.acts.asking import Asked, ask
from posetune.study.tables.database import Database, open_database

__all__ = ["SetOption", "TrialArgument", "act_on", "of_trial", "read_settings", "study_of"]

SetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Give a searched field a value; may be given several times.",
        show_default=False,
    ),
]
TrialArgument: TypeAlias = Annotated[int, typer.Argument(help="Number of the trial.", min=0)]


def study_of(home: Path | None) -> Database:
    """Open the study of a home.

    Raises:
        BadInputError: there is none.
    """
    return open_database(Home.resolve(home).database, create=False)


def act_on(
    name: str,
    act: Act,
    *,
    home: Path | None,
    as_json: bool,
    done: str,
    notes: tuple[str, ...] = (),
    continued_by: str = "the command that started it",
) -> Asked:
    """Ask for an act and print what has become of it.

    Args:
        name: the sweep.
        act: what is wanted.
        home: the home folder.
        as_json: print one JSON object instead of a line.
        done: what has happened once it was taken up, in words.
        notes: what else a person should know.
        continued_by: the command that takes it up where no driver is at work.

    Raises:
        BadInputError: there is no such sweep, or it does not allow the act.
    """
    asked = ask(study_of(home), name, act, by=this_person())
    if as_json:
        print_json({**asked.as_json(), "notes": list(notes)})
        return asked
    for note in notes:
        console.print(note, soft_wrap=True, markup=False)
    if not asked.request.is_waiting:
        console.print(f"sweep {name}: {done}", soft_wrap=True, markup=False)
    elif asked.is_live:
        console.print(
            f"sweep {name}: its driver has not taken this up yet; it will at its next sign of life "
            "(posetune logs shows it)",
            soft_wrap=True,
        )
    else:
        console.print(
            f"sweep {name}: no driver is at work; {continued_by} takes this up",
            soft_wrap=True,
            markup=False,
        )
    return asked


def of_trial(text: str) -> tuple[str, int | None]:
    """Return the sweep and the trial of SWEEP or SWEEP/N.

    Raises:
        BadInputError: what follows the slash is no number.
    """
    name, slash, number = text.partition("/")
    if not slash:
        return name, None
    if not number.isdigit():
        raise BadInputError(f"{text}: must be SWEEP or SWEEP/N, with N the number of a trial")
    return name, int(number)


def read_settings(given: list[str] | None) -> dict[str, Any]:
    """Return the values of --set KEY=VALUE by key.

    Raises:
        BadInputError: one of them says something else.
    """
    settings: dict[str, Any] = {}
    for text in given or []:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise BadInputError(f"--set {text}: must be KEY=VALUE, e.g. --set flow.depth=8")
        settings[key] = _number(read_value(value, f"--set {key}"))
    return settings


def _number(value: Any) -> Any:
    """Return a number that YAML takes for text, such as 1e-5, as a number; all else as it is."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            number = float(value)
            return number if math.isfinite(number) else value
    return value
