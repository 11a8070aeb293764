"""Writes a commented sweep file to start from: all that can be said, with the defaults."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from posetune.api import BadInputError, Trainable
from posetune.spec.fields import FieldDescription, as_yaml, config_fields, sweep_fields
from posetune.spec.loading import configure
from posetune.spec.sweep import SweepSpec

__all__ = ["sweep_template"]

WIDTH = 96
EPOCHS, TRIALS = 9, 12
"""Size of the sweep in the template: three rungs of ASHA, and enough trials for the first cuts."""
HEAD = """\
A sweep of {name}: all that its file can say.
A line that begins with "#name:" holds a default; take away the "#" to give another value.
Before a sweep, posetune check FILE says what it would take and spends nothing.
"""
SEARCH = """\
For each field: {float: [low, high]} or {int: [low, high]}, with log: true or a step; or
{choice: [a, b]}. Any field of the list under fixed can be searched."""


def sweep_template(name: str, trainable: type[Trainable]) -> str:
    """Return a commented sweep file that `posetune check` accepts once its store is there.

    Args:
        name: the trainable as a sweep file names it.
        trainable: its class.

    Raises:
        BadInputError: the trainable's configuration has no field.
    """
    of_config = config_fields(trainable.config_model)
    if not of_config:
        raise BadInputError(f"trainable {name}: its configuration has no field to search")
    searched, space = _example(trainable, of_config)
    metric = min(trainable.metrics, key=lambda name: not name.startswith("val/"))
    written = {
        "trainable": name,
        "store": "data/store",
        "objective.metric": metric,
        "objective.mode": trainable.metrics[metric].mode,
        "pruner.max_epochs": EPOCHS,
        "budget.trials": TRIALS,
    }
    fields = [field for field in sweep_fields() if not field.name.startswith("search.")]
    lines = [*_comment(HEAD.format(name=name))]
    for section, info in SweepSpec.model_fields.items():
        lines += ["", *_comment(info.description or "")]
        if section == "search":
            lines += [*_comment(SEARCH), "search:", f"  {searched}: {space}"]
        elif section == "fixed":
            lines += _section("fixed", [f for f in of_config if f.name != searched], {})
        else:
            of_section = [f for f in fields if f.name.partition(".")[0] == section]
            lines += _section(section, of_section, written)
        if section == "objective":
            lines += [f"  {line}" for line in _metrics(trainable)]
    return "\n".join(lines) + "\n"


def _example(trainable: type[Trainable], fields: list[FieldDescription]) -> tuple[str, str]:
    """Return a field to search and its space: the first real number, ten times up and down.

    Without a positive real number, it is the first field, with its default as the only choice.
    """
    for field in fields:
        if field.schema.get("type") != "number" or not field.default or field.default < 0:
            continue
        low, high = (
            value if _takes(trainable, field, value) else field.default
            for value in (float(f"{field.default * factor:.6g}") for factor in (0.1, 10))
        )
        if low < high:
            return field.name, f"{{float: {as_yaml([low, high])}, log: true}}"
    return fields[0].name, f"{{choice: {as_yaml([fields[0].default])}}}"


def _takes(trainable: type[Trainable], field: FieldDescription, value: float) -> bool:
    try:
        configure(trainable.config_model, {field.name: value}, {})
    except ValidationError:
        return False
    return True


def _section(name: str, fields: list[FieldDescription], written: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of one section; its first field is always given, so that it is a mapping."""
    if not fields:
        yield f"{name}: {{}}"
        return
    if fields[0].name == name:  # no section, a field of its own
        value = written.get(name, fields[0].default)
        yield f"{name}: {as_yaml(value)}"
        return
    yield f"{name}:"
    for i, field in enumerate(fields):
        key = field.name if name == "fixed" else field.name.removeprefix(f"{name}.")
        yield from (f"  {line}" for line in _comment(f"{field.help} ({field.values})"))
        given = i == 0 or field.required or field.name in written
        value = written.get(field.name, field.default)
        yield f"  {'' if given else '#'}{key}: {as_yaml(value)}"


def _metrics(trainable: type[Trainable]) -> Iterator[str]:
    yield from _comment("Metrics on validation that are reported, each with its mode:")
    for name, metric in trainable.metrics.items():
        if name.startswith("val/"):
            yield from _comment(f"{name}, {metric.mode}: {metric.help}")


def _comment(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from textwrap.wrap(line, WIDTH, initial_indent="# ", subsequent_indent="# ")
