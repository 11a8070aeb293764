"""`posetune note`: write a note about a sweep or a trial."""

from __future__ import annotations

from typing import Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.acting import act_on, of_trial
from posetune.cli.options import AddressOption, HomeOption, JsonOption
from posetune.cli.relay import relay
from posetune.study.acts.act import AddNote

__all__ = ["note"]


def note(
    target: Annotated[str, typer.Argument(help="SWEEP or SWEEP/N, with N the number of a trial.")],
    text: Annotated[str, typer.Argument(help="What the note says.")],
    home: HomeOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a note about a sweep or a trial; `show`, the report and MLflow have it.

    posetune note first/3 "the loss is flat from epoch 5 on"
    """
    if address is not None:
        raise relay("note", target, text, address=address, home=home, as_json=as_json)
    name, trial = of_trial(target)
    if not text.strip():
        raise BadInputError(f"{target}: an empty note says nothing")
    act = AddNote(text=text, trial=trial)
    act_on(name, act, home=home, as_json=as_json, done="the note is written")
