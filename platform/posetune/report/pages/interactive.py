"""Describes the charts of what trials reported: what a browser draws over the pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from posetune.report.pages.figures import (
    DASHES,
    Figure,
    layout_of,
    lines_of,
    marks_at,
    plain_text,
    rounded,
)
from posetune.report.pages.scales import best_values
from posetune.report.pages.series import curves_of
from posetune.report.wording import format_value
from posetune.study.states import TrialState
from posetune.study.view import SweepView, TrialView

__all__ = ["distribution", "learning_curves", "so_far", "trial_facts"]

_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "hexagon")
_END_SYMBOLS = {
    TrialState.PRUNED: "x-thin-open",
    TrialState.FAILED: "asterisk-open",
    TrialState.STOPPED: "square-x-open",
    TrialState.PAUSED: "hourglass-open",
    TrialState.INTERRUPTED: "line-ew-open",
    TrialState.RUNNING: "circle-open",
}
"""What marks the end of a curve; a state that is not here is marked by an open square."""
_END_WORDS = {TrialState.PRUNED: "cut", TrialState.COMPLETE: "", TrialState.RUNNING: "running"}
"""What the legend calls an end if not by the state's name; complete trials have no mark."""


def trial_facts(view: SweepView) -> list[dict[str, Any]]:
    """Return what the page says of each trial that is pointed at, in the order of their ranking."""
    ranked = {trial.number for trial in view.ranked}
    rest = [trial for trial in view.trials if trial.number not in ranked]
    return [_facts(view, trial) for trial in [*view.ranked, *rest]]


def _facts(view: SweepView, trial: TrialView) -> dict[str, Any]:
    at = trial.chosen
    facts = {
        "number": trial.number,
        "state": trial.state.lower(),
        "epochs": f"{trial.epochs}/{trial.last_epoch}",
        "value": "" if at is None else f"{at.value:.4g} at epoch {at.epoch}",
        "params": {name: format_value(value) for name, value in trial.params.items()},
    }
    return {**facts, "reason": trial.reason} if trial.reason else facts


def learning_curves(view: SweepView) -> Figure:
    """Describe every trial's objective over its epochs, its best epoch and how it ended."""
    found = curves_of(view, lambda value: value if math.isfinite(value) else None)
    ends, curves = found.ends, found.points
    groups: list[list[int]] = [[] for _ in ends]
    for number in curves:
        groups[found.rung_of(number)].append(number)
    data = [
        lines_of(
            f"to epoch {ends[rung]}",
            {number: curves[number] for number in group},
            colour=len(ends) - 1 - rung,
            marker={"size": 5, "symbol": _SYMBOLS[rung % len(_SYMBOLS)]},
        )
        for rung, group in enumerate(groups)
        if group
    ]
    data += _ends(view, curves)
    bests = [(t, t.chosen) for t in view.trials if t.chosen is not None and t.number in curves]
    data.append(
        {
            "mode": "markers",
            "name": f"{view.spec.objective.select} epoch of each",
            "x": [at.epoch for _, at in bests],
            "y": [at.value for _, at in bests],
            "customdata": [trial.number for trial, _ in bests],
            "marker": {"symbol": "star", "size": 9},
            "meta": {"colour": 6},
        }
    )
    data += _baselines(view, 1, view.spec.pruner.max_epochs)
    layout = layout_of("epoch", view.spec.objective.metric)
    layout["shapes"] = [
        {"type": "line", "x0": e, "x1": e, "y0": 0, "y1": 1, "yref": "paper", "layer": "below"}
        for e in ends[:-1]
    ]
    return {"data": data, "layout": layout}


def _ends(view: SweepView, curves: Mapping[int, Sequence[tuple[int, float]]]) -> list[Figure]:
    """Return a trace of marks for each way in which trials have ended, and of those spared."""
    found: dict[TrialState, list[int]] = {}
    for number in curves:
        found.setdefault(view.trials[number].state, []).append(number)
    traces = []
    for state, numbers in sorted(found.items()):
        word = _END_WORDS.get(state, state.lower())
        if word:
            at = [curves[number][-1] for number in numbers]
            symbol = _END_SYMBOLS.get(state, "square-open")
            traces.append(marks_at(word, numbers, at, symbol=symbol, colour=4))
    spared = {n: dict(curves[n]).get(e) for n, e in view.audited.items() if n in curves}
    at = [(view.audited[n], value) for n, value in spared.items() if value is not None]
    if at:
        numbers = [n for n, value in spared.items() if value is not None]
        word = "ran on where ASHA would have cut"
        traces.append(marks_at(word, numbers, at, symbol="diamond-open", colour=3))
    return traces


def so_far(view: SweepView) -> Figure:
    """Describe the best value over the training time of all trials so far."""
    points = best_values(view)
    gpu = bool(view.spec.resources.gpu)
    data: list[Figure] = [
        {
            "mode": "lines+markers",
            "name": "best so far",
            "x": [point.hours for point in points],
            "y": [point.value for point in points],
            "customdata": [point.trial for point in points],
            "line": {"shape": "hv", "width": 2},
            "meta": {"colour": 0, "step": True},
        }
    ]
    if points:
        data += _baselines(view, 0, points[-1].hours)
    title = "GPU-hours of training" if gpu else "hours of training (no GPU)"
    return {"data": data, "layout": layout_of(title, view.spec.objective.metric)}


def distribution(errors_n: Sequence[float], name: str, marks: Mapping[str, float]) -> Figure:
    """Describe how the frames' errors are distributed, with lines at reference values.

    Args:
        errors_n: error of each frame, (N,), in the unit of the metric.
        name: name of the metric, for the axis.
        marks: reference values in the same unit, by the name of each.
    """
    counts, edges = np.histogram(errors_n, bins=40)
    bars = {
        "type": "bar",
        "x": rounded((edges[:-1] + edges[1:]) / 2),
        "y": [int(count) for count in counts],
        "width": float(edges[1] - edges[0]),
        "hovertemplate": "%{y} frames at %{x:.4g}<extra></extra>",
        "showlegend": False,
        "meta": {"colour": 5},
    }
    top = int(counts.max())
    lines = [
        {
            "mode": "lines",
            "name": plain_text(f"{mark} {value:.1f}"),
            "x": [value, value],
            "y": [0, top],
            "hoverinfo": "name",
            "line": {"dash": DASHES[i % len(DASHES)], "width": 2},
            "meta": {"colour": (4, 0, 6, 3)[i % 4]},
        }
        for i, (mark, value) in enumerate(marks.items())
    ]
    return {"data": [bars, *lines], "layout": layout_of(name, "frames")}


def _baselines(view: SweepView, start: float, end: float) -> list[Figure]:
    return [
        {
            "mode": "lines",
            "name": plain_text(f"{name} {value:.4g}"),
            "x": [start, end],
            "y": [value, value],
            "hoverinfo": "name",
            "line": {"width": 1, "dash": DASHES[1 + i % (len(DASHES) - 1)]},
            "meta": {"colour": 7},
        }
        for i, (name, value) in enumerate(view.baselines.items())
    ]
