"""Turns parameters and values into numbers along an axis, for pictures and interactive charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from posetune.spec.parameters import Choice, FloatRange, Scalar
from posetune.study.view import SweepView

__all__ = [
    "LARGEST",
    "BestValue",
    "best_values",
    "drawable",
    "numeric",
    "parameter_ends",
    "spans_a_plane",
    "to_unit",
    "unlog",
]

_LEAST_VALUES = 4
"""Number of distinct values of each parameter that a surface needs; below it, the surface would
show what nobody measured."""
LARGEST = 1e30
"""Values beyond this are drawn as if they were this."""


class BestValue(NamedTuple):
    """Says how good a sweep was after so much training."""

    hours: float
    """Training time of all trials, in GPU-hours, or in hours for a sweep without GPUs."""
    value: float
    """The best value so far, in the unit of the objective."""
    trial: int
    """Number of the trial that has it."""


def best_values(view: SweepView) -> list[BestValue]:
    """Return the best value over the training time of all trials so far.

    It is the best of any epoch, or of complete trials where the last epoch counts. The last entry
    repeats the best value at the end of all training.
    """
    objective = view.spec.objective
    is_last = objective.select == "last"
    spent = 0.0
    points: list[BestValue] = []
    for report in view.reports:
        spent += report.seconds * view.spec.resources.gpus_or_one / 3600
        is_whole = report.epoch == view.spec.pruner.max_epochs
        if report.value is None or (is_last and not is_whole):
            continue
        if not points or objective.better(report.value, points[-1].value):
            points.append(BestValue(spent, report.value, report.trial))
        elif is_last:
            points.append(points[-1]._replace(hours=spent))
    if points:
        points.append(points[-1]._replace(hours=spent))
    return points


def drawable(value: float) -> float:
    """Return a number as matplotlib can draw it, which fails near the largest float."""
    return min(max(value, -LARGEST), LARGEST)


def numeric(view: SweepView, name: str, values: Sequence[Scalar]) -> list[float]:
    """Return a parameter's values as numbers; a value of a choice is its index in the list."""
    parameter = view.spec.search[name]
    if isinstance(parameter, Choice):
        return [float(parameter.values.index(value)) for value in values]
    return [drawable(float(value)) for value in values]


def unlog(view: SweepView, name: str, values: Sequence[float]) -> list[float]:
    """Return the values as they lie along the parameter's axis: logarithms where it is one."""
    parameter = view.spec.search[name]
    if not isinstance(parameter, Choice) and parameter.log:
        return [float(v) for v in np.log(values)]
    return list(values)


def to_unit(values: Sequence[float]) -> list[float]:
    """Return the values moved and stretched so that they reach from 0 to 1."""
    low, high = min(values), max(values)
    return [(v - low) / (high - low) if high > low else 0.5 for v in values]


def parameter_ends(view: SweepView, name: str) -> tuple[str, str]:
    """Return the least and the largest value that a trial has of a parameter, in words."""
    parameter = view.spec.search[name]
    found: list[Any] = [t.params[name] for t in view.trials]
    if isinstance(parameter, Choice):
        found.sort(key=parameter.values.index)
        return str(found[0]), str(found[-1])
    shown = ".3g" if isinstance(parameter, FloatRange) else "d"
    return format(min(found), shown), format(max(found), shown)


def spans_a_plane(columns: Sequence[Sequence[float]]) -> bool:
    """Return whether the trials have enough different values of both parameters for a surface."""
    points = np.unique(np.column_stack(list(columns)), axis=0)
    distinct = min(len(set(column)) for column in columns)
    flat = np.linalg.matrix_rank(points - points.mean(axis=0), tol=1e-6) < 2
    return distinct >= _LEAST_VALUES and not flat
