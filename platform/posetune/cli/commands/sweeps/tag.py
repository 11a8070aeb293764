"""`posetune tag`: give a sweep or a trial a tag."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError

from posetune.api import BadInputError
from posetune.cli.acting import act_on, of_trial
from posetune.cli.options import AddressOption, HomeOption, JsonOption
from posetune.cli.relay import relay
from posetune.study.acts.act import SetTag

__all__ = ["tag"]


def tag(
    target: Annotated[str, typer.Argument(help="SWEEP or SWEEP/N, with N the number of a trial.")],
    tag: Annotated[str, typer.Argument(help="NAME or NAME=VALUE.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take the tag away.")] = False,
    home: HomeOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a sweep or a trial a tag; `posetune list --tag` finds sweeps by it.

    posetune tag first paper=figure-3

    posetune tag first/3 paper --remove
    """
    if address is not None:
        more = ["--remove"] if remove else []
        raise relay("tag", target, tag, *more, address=address, home=home, as_json=as_json)
    name, trial = of_trial(target)
    key, _, value = tag.partition("=")
    try:
        act = SetTag(name=key, value=None if remove else value, trial=trial)
    except ValidationError as error:
        fault = error.errors()[0]
        raise BadInputError(
            f"tag {tag}: its {fault['loc'][-1]} {fault['msg'].lower()}; names have letters, "
            "digits, _, . and - (64 at most), values 400 characters at most"
        ) from error
    done = f"the tag {key} is taken away" if remove else f"has the tag {tag}"
    act_on(name, act, home=home, as_json=as_json, done=done)
