"""Reads a sweep file and checks all of it before anything is spent.

`load_sweep` is the way in: it makes a `SweepSpec` of the file, finds the trainable and checks every
searched and fixed field with the trainable's configuration model. Each error names file, line and
key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from posetune.api import BadInputError, Trainable
from posetune.metrics import MetricError, check_metric_name
from posetune.spec.documents import Document, Key, describe_errors, read_document
from posetune.spec.parameters import Choice, FloatRange, IntRange, Scalar
from posetune.spec.registration import load_extension, load_trainable
from posetune.spec.sweep import SweepSpec

__all__ = ["configure", "default_params", "flatten", "load_sweep", "rates_decay", "vary_one_by_one"]


LARGEST_INT = 2**53
"""Beyond this a sampler's floats leave whole numbers out."""

FINEST_STEP = 1e-7
"""Smallest step of a range, as a share of its largest number: Optuna takes a value for one of a
grid's where it is within 1e-8 steps of it, and a float has 16 digits."""


MOST_VALUES = 10_000
"""Values of a range that an ablation tries one by one at most."""


def load_sweep(path: Path) -> tuple[SweepSpec, type[Trainable], Document]:
    """Read a sweep file and check all that it says.

    Returns:
        The sweep, with its fixed fields by dotted names; the trainable's class; and the file with
        the line of each key, for further messages.

    Raises:
        BadInputError: the file cannot be read, or something in it is wrong. The message names file,
            line and key.
    """
    document = read_document(path)
    try:
        spec = SweepSpec.model_validate(document.content)
    except ValidationError as error:
        raise BadInputError(describe_errors(error, document)) from error
    try:
        trainable = load_trainable(spec.trainable)
    except BadInputError as error:
        raise BadInputError(f"{document.at(('trainable',))}: {error}") from error
    spec = spec.model_copy(update={"fixed": flatten(spec.fixed)})
    _check_ranges(spec, document)
    _check_against_trainable(spec, trainable, document)
    pruner = spec.pruner.fitting(rates_decay=rates_decay(spec, trainable))
    return spec.model_copy(update={"pruner": pruner}), trainable, document


def rates_decay(spec: SweepSpec, trainable: type[Trainable]) -> bool:
    """Return whether the learning rates of a sweep's trials decay, as the defaults have them."""
    asked = getattr(trainable, "rates_decay", None)  # one that names no base may lack it
    return bool(asked and asked(configure(trainable.config_model, spec.fixed, {})))


def configure(
    model: type[BaseModel], fixed: Mapping[str, Any], params: Mapping[str, Any]
) -> BaseModel:
    """Build a trainable's configuration from values by dotted names.

    Args:
        model: the trainable's `config_model`.
        fixed: values of fixed fields, by dotted name.
        params: values of searched fields, by dotted name; they win over `fixed`.

    Raises:
        ValidationError: the model has no such field, or refuses the value.
        TypeError: a name goes through a field that has a value of its own.
    """
    nested: dict[str, Any] = {}
    for name, value in {**fixed, **params}.items():
        *parents, leaf = name.split(".")
        level = nested
        for parent in parents:
            level = level.setdefault(parent, {})
            if not isinstance(level, dict):
                raise TypeError(f"{name}: {parent} is given a value too, so it has no fields")
        level[leaf] = value
    return model.model_validate(nested)


def default_params(spec: SweepSpec, model: type[BaseModel]) -> dict[str, Scalar]:
    """Return the searched parameters of trial 0.

    They are the trainable's defaults, or the values of the search space that are nearest to them.
    In an ablation (`one_by_one`) they are the first value of each field, because there the file
    itself says what the other values are compared with.
    """
    if spec.sampler.name == "one_by_one":
        return {name: parameter.corners[0] for name, parameter in spec.search.items()}
    config = configure(model, spec.fixed, {}).model_dump()
    return {name: _nearest(p, _lookup(config, name)) for name, p in spec.search.items()}


def vary_one_by_one(spec: SweepSpec, defaults: Mapping[str, Scalar]) -> list[dict[str, Scalar]]:
    """Return the parameters of an ablation's trials: `defaults`, then one field changed in each.

    Raises:
        ValueError: a searched field is a range of real numbers, or has too many whole ones.
    """
    trials = [dict(defaults)]
    for name, parameter in spec.search.items():
        values: Sequence[Scalar]
        if isinstance(parameter, Choice):
            values = parameter.values
        elif isinstance(parameter, IntRange):
            low, high = parameter.corners
            values = range(low, high + 1, parameter.step)
            if len(values) > MOST_VALUES:
                raise ValueError(
                    f"one_by_one cannot try all {len(values)} values of {name}; give a larger step"
                )
        else:
            raise ValueError(
                f"sampler one_by_one cannot try every real number of {name}; give choice: [...]"
            )
        trials += [{**defaults, name: value} for value in values if value != defaults[name]]
    return trials


def _nearest(parameter: FloatRange | IntRange | Choice, default: Any) -> Scalar:
    if isinstance(parameter, Choice):
        equal = [v for v in parameter.values if v == default and type(v) is type(default)]
        numbers = [v for v in parameter.values if isinstance(v, int | float)]
        if equal or not numbers or not isinstance(default, int | float):
            return (equal or list(parameter.values))[0]
        return min(numbers, key=lambda v: abs(v - default))
    is_number = isinstance(default, int | float) and math.isfinite(default)
    return parameter.nearest(default if is_number else parameter.bounds[0])


def _lookup(config: Mapping[str, Any], name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = value[part]
    return value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted names; an empty mapping is a leaf."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _check_ranges(spec: SweepSpec, document: Document) -> None:
    """Refuse ranges of which a sampler could draw one value only, or could not tell them apart."""
    for name, parameter in spec.search.items():
        if isinstance(parameter, Choice):
            continue
        place = document.at(("search", name))
        low, high = parameter.bounds
        largest = max(abs(low), abs(high))
        if isinstance(parameter, IntRange) and largest > LARGEST_INT:
            raise BadInputError(f"{place}: bounds beyond 2^53 cannot be searched, got {largest}")
        if parameter.step is None or parameter.log:
            continue
        if parameter.step > high - low and parameter.corners[1] == low:
            raise BadInputError(
                f"{place}: step ({parameter.step:g}) is larger than the range from {low:g} to "
                f"{high:g}, which leaves one value; give a smaller step, or fix the field"
            )
        if isinstance(parameter, FloatRange) and parameter.step < FINEST_STEP * largest:
            raise BadInputError(
                f"{place}: step ({parameter.step:g}) is too fine for numbers as large as "
                f"{largest:g}; leave it out, and every real number is a value"
            )


def _check_against_trainable(
    spec: SweepSpec, trainable: type[Trainable], document: Document
) -> None:
    """Refuse a sweep that the trainable cannot run; the message names file, line and key."""
    model = trainable.config_model
    for name in spec.search:
        if name in spec.fixed:
            raise BadInputError(
                f"{document.at(('search', name))}: is searched and also fixed; keep one of them"
            )
    if spec.resources.processes > 1 and not trainable.parallel:
        raise BadInputError(
            f"{document.at(('resources',))}: {spec.trainable} trains in one process, got "
            f"{spec.resources.processes}; give gpu: 1 or less"
        )
    _check_fields(model, spec.fixed, document, section="fixed")
    for name, parameter in spec.search.items():
        for corner in parameter.corners:
            _check_fields(model, {**spec.fixed, name: corner}, document, section="search")
    _check_extensions(spec, document)
    if spec.sampler.name == "one_by_one":
        _check_one_by_one(spec, model, document)
    _check_metrics(spec, trainable, document)


def _check_metrics(spec: SweepSpec, trainable: type[Trainable], document: Document) -> None:
    """Refuse metrics that no trainable may report, and an objective that this one does not."""
    try:
        for name in trainable.metrics:
            check_metric_name(name)
    except MetricError as error:
        raise BadInputError(f"{document.at(('trainable',))}: {spec.trainable}: {error}") from error
    metric = trainable.metrics.get(spec.objective.metric)
    if metric is None:
        offered = ", ".join(name for name in trainable.metrics if name.startswith("val/"))
        raise BadInputError(
            f"{document.at(('objective', 'metric'))}: {spec.trainable} does not report "
            f"{spec.objective.metric!r}; it reports {offered or ', '.join(trainable.metrics)}"
        )
    if metric.mode != spec.objective.mode:
        raise BadInputError(
            f"{document.at(('objective', 'mode'))}: {spec.objective.metric} is better when "
            f"{'lower' if metric.mode == 'min' else 'higher'}: write mode: {metric.mode}"
        )


def _check_extensions(spec: SweepSpec, document: Document) -> None:
    """Refuse a sampler or a pruner of somebody's that is not registered or not complete."""
    for section, offered in (("sampler", "ask"), ("pruner", "decide")):
        name = getattr(spec, section).name
        if ":" in name:
            try:
                load_extension(name, section, [offered])
            except BadInputError as error:
                raise BadInputError(f"{document.at((section, 'name'))}: {error}") from error


def _check_one_by_one(spec: SweepSpec, model: type[BaseModel], document: Document) -> None:
    try:
        count = len(vary_one_by_one(spec, default_params(spec, model)))
    except ValueError as error:
        raise BadInputError(f"{document.at(('search',))}: {error}") from error
    if spec.budget.trials > count:
        raise BadInputError(
            f"{document.at(('budget', 'trials'))}: one_by_one has {count} trials in this space, "
            f"got {spec.budget.trials}"
        )


def _check_fields(
    model: type[BaseModel], values: Mapping[str, Any], document: Document, *, section: str
) -> None:
    """Refuse values that a trainable's configuration does not take.

    Args:
        model: the trainable's `config_model`.
        values: value of each field, by dotted name.
        document: the sweep file, for the place of the key at fault.
        section: the section of the file that the values come from, `fixed` or `search`.
    """
    try:
        config = flatten(configure(model, values, {}).model_dump())
        for name, given in values.items():
            built = config.get(name)  # a field that is gone has no value
            if isinstance(built, float) and not math.isfinite(built):  # of a word: inf, 1e999
                place = document.at(_key(document, section, name))
                raise BadInputError(f"{place}: must be a finite number, got {given!r}")
    except TypeError as error:
        raise BadInputError(f"{document.at((section,))}: {error}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = f"{model.__name__} has no such field"
        # A check that involves several fields names none of them: the message then says the
        # section alone, and pydantic's own text has the values.
        name = next((n for n in values if n == field or n.startswith(f"{field}.")), field)
        key = _key(document, section, name) if name else (section,)
        shown = f", got {values.get(name, fault.get('input'))!r}" if name else ""
        raise BadInputError(f"{document.at(key)}: {message}{shown}") from error


def _key(document: Document, section: str, name: str) -> Key:
    """Return the path of a field in the file, which holds it by dotted name or nested."""
    dotted = (section, name)
    return dotted if dotted in document.lines else (section, *name.split("."))
