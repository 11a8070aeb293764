"""`posetune fields`: what a sweep file can set."""

from __future__ import annotations

import shutil
import textwrap
from typing import Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.options import AnyTrainableArgument, JsonOption
from posetune.cli.screen import print_json
from posetune.spec.fields import FieldDescription, as_yaml, config_fields, sweep_fields
from posetune.spec.registration import DEFAULT_TRAINABLE, load_trainable
from posetune.spec.template import sweep_template

__all__ = ["fields"]


def fields(
    trainable: AnyTrainableArgument = DEFAULT_TRAINABLE,
    search: Annotated[
        str | None,
        typer.Option("--search", help="Only fields with this word in their name or help."),
    ] = None,
    template: Annotated[
        bool, typer.Option("--template", help="Print a commented sweep file to start from.")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the list as a page of Markdown.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List every field that a sweep file can set, with default, bounds, unit and help.

    posetune fields --search weight

    posetune fields --template > my.yaml
    """
    if template + markdown + as_json > 1 or (template and search is not None):
        raise BadInputError(
            "--template, --markdown and --json exclude each other, and --search does not select "
            "fields of a --template; give one of them"
        )
    found = load_trainable(trainable)
    if template:
        print(sweep_template(trainable, found), end="")
        return
    lists = {"sweep": sweep_fields(), "configuration": config_fields(found.config_model)}
    if search is not None:
        lists = {name: [f for f in of if f.mentions(search)] for name, of in lists.items()}
        if not any(lists.values()):
            raise BadInputError(f"--search {search}: no field of {trainable} mentions it")
    if as_json:
        print_json(
            {
                "trainable": trainable,
                **{name: [field.as_json() for field in of] for name, of in lists.items()},
            }
        )
        return
    titles = {
        "sweep": "A sweep file",
        "configuration": f"The configuration of {trainable}, for search and fixed",
    }
    show = _print_table if markdown else _print_list
    for name, of in lists.items():
        if of:
            show(titles[name], of)


def _print_list(title: str, of: list[FieldDescription]) -> None:
    """Print fields for a terminal: a line of facts each, and its help below."""
    width = shutil.get_terminal_size().columns
    print(f"{title}\n")
    for field in of:
        print(f"{field.name}  {'; '.join(_facts(field))}")
        indent = " " * 4
        print(textwrap.fill(field.help, width, initial_indent=indent, subsequent_indent=indent))
    print()


def _facts(field: FieldDescription) -> list[str]:
    unit = [f"unit {field.unit}"] if field.unit not in ("", "1") else []
    return [_default(field), field.values, *unit]


def _default(field: FieldDescription) -> str:
    return "must be given" if field.required else f"default {as_yaml(field.default)}"


def _print_table(title: str, of: list[FieldDescription]) -> None:
    print(f"## {title}\n")
    print("| field | default | values | unit | what it is |\n|---|---|---|---|---|")
    for field in of:
        default = "*must be given*" if field.required else f"`{as_yaml(field.default)}`"
        print(f"| `{field.name}` | {default} | {field.values} | {field.unit} | {field.help} |")
    print()
