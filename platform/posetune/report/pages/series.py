"""Says what charts show as numbers, for those that are pictures and those that a browser draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from posetune.report.pages.scales import drawable, numeric, parameter_ends, to_unit, unlog
from posetune.report.wording import short_names
from posetune.study.search.rungs import rung_epochs
from posetune.study.view import SweepView

__all__ = ["Curves", "ParallelLines", "curves_of", "parallel_lines"]


@dataclass(frozen=True)
class Curves:
    """The objective of every trial over its epochs, and the epochs at which trials end."""

    ends: list[int]
    """Epochs of the rungs and of a complete trial, in ascending order."""
    points: dict[int, list[tuple[int, float]]]
    """Epoch and value of each report, by the trial's number."""

    def rung_of(self, number: int) -> int:
        """Return the place in `ends` of the first epoch that a trial did not train beyond."""
        last, _ = self.points[number][-1]
        return next((i for i, end in enumerate(self.ends) if last <= end), len(self.ends) - 1)


def curves_of(view: SweepView, shown: Callable[[float], float | None]) -> Curves:
    """Return the learning curves of a sweep's trials.

    Args:
        view: the sweep.
        shown: what is shown of a value; None leaves it out.
    """
    points: dict[int, list[tuple[int, float]]] = {}
    for report in view.reports:
        value = None if report.value is None else shown(report.value)
        if value is not None:
            points.setdefault(report.trial, []).append((report.epoch, value))
    ends = sorted({*rung_epochs(view.spec.pruner), view.spec.pruner.max_epochs})
    return Curves(ends, points)


@dataclass(frozen=True)
class ParallelLines:
    """Trials as lines across an axis for each parameter and one for the objective."""

    axes: list[str]
    """Short name of each axis."""
    ends: list[tuple[str, str]]
    """Least and largest value along each axis, in words."""
    heights: dict[int, list[float]]
    """Where a trial's line crosses each axis, from 0 to 1, by its number; the best trial last."""


def parallel_lines(
    view: SweepView, values: Mapping[int, float], *, most: int | None = None
) -> ParallelLines:
    """Return the lines of a sweep's trials across their parameters and their value.

    Args:
        view: the sweep.
        values: value of each trial to draw, by the trial's number.
        most: number of lines at most; of more trials the best are taken. None takes all.
    """
    names = list(view.spec.search)
    columns = [
        to_unit(unlog(view, n, numeric(view, n, [t.params[n] for t in view.trials]))) for n in names
    ]
    sign = view.spec.objective.sign
    ranked = sorted(values, key=lambda n: -sign * values[n])
    if most is not None:
        ranked = ranked[-most:]
    last = dict(zip(ranked, to_unit([drawable(values[n]) for n in ranked]), strict=True))
    ends = [parameter_ends(view, name) for name in names]
    ends.append((f"{min(values.values()):.4g}", f"{max(values.values()):.4g}"))
    return ParallelLines(
        axes=[*short_names(names), view.spec.objective.metric.rpartition("/")[2]],
        ends=ends,
        heights={n: [*(column[n] for column in columns), last[n]] for n in ranked},
    )
