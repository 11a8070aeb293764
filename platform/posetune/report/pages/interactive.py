"""Describes the page's charts for Plotly: what a browser with scripts draws over the pictures.

Each function returns a figure as plain JSON (`data` and `layout`). A trace says by its `customdata`
which trial each of its points belongs to; the page's script makes hover texts and the selection of
a trial from that alone, so no chart has a script of its own. Colours are left to the script,
because they depend on the light or dark scheme of whoever looks: a trace names its place in the
palette (`meta.colour`), its rank from worst to best (`meta.share`), or that its numbers are a scale
(`meta.scale`).

No chart relies on colour alone: lines differ in dashes, points in shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, TypeAlias

import numpy as np

from posetune.report.importance import Importance
from posetune.report.pages.scales import (
    best_values,
    numeric,
    parameter_ends,
    spans_a_plane,
    to_unit,
    unlog,
)
from posetune.report.wording import broken, format_value, short_names
from posetune.spec.parameters import Choice
from posetune.study.search.rungs import rung_epochs
from posetune.study.states import TrialState
from posetune.study.view import SweepView, TrialView

__all__ = [
    "Figure",
    "contour",
    "distribution",
    "importance_bars",
    "learning_curves",
    "parallel_coordinates",
    "slices",
    "so_far",
    "trial_facts",
]

Figure: TypeAlias = dict[str, Any]
"""A figure of Plotly: its traces in `data` and its axes in `layout`."""

_DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "5px,2px,1px,2px")
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
_SHADES = 8
"""Number of groups by rank that the lines of the parallel coordinates are drawn in."""
_GRID = 24
"""Number of places along each side of a surface."""


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
    ends = sorted({*rung_epochs(view.spec.pruner), view.spec.pruner.max_epochs})
    curves: dict[int, list[tuple[int, float]]] = {}
    for report in view.reports:
        if report.value is not None and math.isfinite(report.value):
            curves.setdefault(report.trial, []).append((report.epoch, report.value))
    groups: list[list[int]] = [[] for _ in ends]
    for number, points in curves.items():
        groups[
            next((i for i, end in enumerate(ends) if points[-1][0] <= end), len(ends) - 1)
        ].append(number)
    data = [
        _lines(
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
    layout = _layout("epoch", view.spec.objective.metric)
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
            traces.append(_marks(word, numbers, at, symbol=symbol, colour=4))
    spared = {n: dict(curves[n]).get(e) for n, e in view.audited.items() if n in curves}
    at = [(view.audited[n], value) for n, value in spared.items() if value is not None]
    if at:
        numbers = [n for n, value in spared.items() if value is not None]
        word = "ran on where ASHA would have cut"
        traces.append(_marks(word, numbers, at, symbol="diamond-open", colour=3))
    return traces


def _marks(
    name: str,
    numbers: Sequence[int],
    at: Sequence[tuple[float, float]],
    *,
    symbol: str,
    colour: int,
) -> Figure:
    return {
        "mode": "markers",
        "name": name,
        "x": [x for x, _ in at],
        "y": [y for _, y in at],
        "customdata": list(numbers),
        "marker": {"symbol": symbol, "size": 11, "line": {"width": 2}},
        "meta": {"colour": colour},
    }


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
    return {"data": data, "layout": _layout(title, view.spec.objective.metric)}


def importance_bars(found: Importance) -> Figure:
    """Describe the importance of each parameter as a bar, in percent."""
    names = list(found.params)
    shares = [100 * found.params[name] for name in names]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [_text(name) for name in short_names(names)],
        "x": shares,
        "text": [f"{share:.0f} %" for share in shares],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertext": [_text(name) for name in names],
        "hoverinfo": "text",
        "showlegend": False,
        "meta": {"colour": 0},
    }
    layout = _layout(f"share, {found.trials} trials after epoch {found.epoch}", "")
    layout["yaxis"] |= {"autorange": "reversed", "type": "category"}
    layout["xaxis"] |= {"range": [0, max(shares) * 1.25]}
    return {"data": [bars], "layout": layout}


def parallel_coordinates(view: SweepView, values: Mapping[int, float]) -> Figure:
    """Describe each trial as a line across all parameters to its value; better ones stand out.

    Args:
        view: the sweep.
        values: value of each trial to draw, by the trial's number.
    """
    names = list(view.spec.search)
    columns = [
        to_unit(unlog(view, n, numeric(view, n, [t.params[n] for t in view.trials]))) for n in names
    ]
    sign = view.spec.objective.sign
    ranked = sorted(values, key=lambda n: -sign * values[n])
    heights = dict(zip(ranked, to_unit([values[n] for n in ranked]), strict=True))
    rows = {n: [*(column[n] for column in columns), heights[n]] for n in ranked}
    data: list[Figure] = []
    for group in np.array_split(np.array(ranked[:-1], dtype=int), _SHADES):
        if len(group):
            share = len(data) / (_SHADES - 1)
            lines = {int(n): list(enumerate(rows[int(n)])) for n in group}
            trace = _lines("", lines, colour=0, marker={"size": 5})
            data.append({**trace, "meta": {"share": share}, "showlegend": False})
    best = ranked[-1]
    line = _lines("the best", {best: list(enumerate(rows[best]))}, colour=4, marker={"size": 7})
    data.append({**line, "line": {"width": 3, "dash": "solid"}, "showlegend": False})
    ends = [parameter_ends(view, name) for name in names]
    ends.append((f"{min(values.values()):.4g}", f"{max(values.values()):.4g}"))
    short = [*short_names(names), view.spec.objective.metric.rpartition("/")[2]]
    layout = _layout("", "")
    layout["xaxis"] |= {
        "tickvals": list(range(len(short))),
        "ticktext": [_text(broken(name)).replace("\n", "<br>") for name in short],
        "range": [-0.5, len(short) - 0.5],
        "showgrid": True,
        "ticklabeloverflow": "allow",
    }
    layout["yaxis"] |= {"visible": False, "range": [-0.12, 1.12]}
    layout["annotations"] = [
        {"x": i, "y": y, "text": _text(text), "showarrow": False}
        for i, (low, high) in enumerate(ends)
        for y, text in ((-0.08, low), (1.08, high))
    ]
    return {"data": data, "layout": layout}


def slices(view: SweepView, values: Mapping[int, float]) -> dict[str, Figure]:
    """Describe the trials' values over each parameter alone, by the parameter's name.

    Args:
        view: the sweep.
        values: value of each trial to draw, by the trial's number.
    """
    numbers = list(values)
    order = [int(place) for place in np.argsort(np.argsort(numbers))]
    figures = {}
    for name in view.spec.search:
        points = {
            "mode": "markers",
            "x": numeric(view, name, [view.trials[n].params[name] for n in numbers]),
            "y": [values[n] for n in numbers],
            "customdata": numbers,
            "marker": {
                "size": 8,
                "color": order,
                "colorbar": {
                    "tickvals": [0, max(len(numbers) - 1, 1)],
                    "ticktext": ["first", "last"],
                    "thickness": 12,
                },
            },
            "showlegend": False,
            "meta": {"scale": True},
        }
        layout = _layout(name, view.spec.objective.metric)
        layout["xaxis"] |= _axis(view, name)
        figures[name] = {"data": [points], "layout": layout}
    return figures


def contour(view: SweepView, values: Mapping[int, float], x: str, y: str) -> Figure:
    """Describe the trials' values over two parameters, with a surface between the trials.

    Args:
        view: the sweep.
        values: value of each trial to draw, by the trial's number.
        x: name of the parameter along the horizontal axis.
        y: name of the parameter along the vertical axis.
    """
    numbers = list(values)
    across = numeric(view, x, [view.trials[n].params[x] for n in numbers])
    up = numeric(view, y, [view.trials[n].params[y] for n in numbers])
    heights = [values[n] for n in numbers]
    metric = view.spec.objective.metric.rpartition("/")[2]
    ends = {"cmin": min(heights), "cmax": max(heights)}
    low_is_best = view.spec.objective.mode == "min"
    points = {
        "mode": "markers",
        "x": across,
        "y": up,
        "customdata": numbers,
        "marker": {
            "size": 10,
            "color": heights,
            **ends,
            "line": {"width": 1},
            "reversescale": low_is_best,
            "colorbar": {"title": {"text": _text(metric), "side": "right"}, "thickness": 12},
        },
        "showlegend": False,
        "meta": {"scale": True},
    }
    surface = _surface(view, x, y, heights, numbers)
    if surface is not None:
        surface |= {"zmin": ends["cmin"], "zmax": ends["cmax"], "reversescale": low_is_best}
    best = min(values, key=lambda n: view.spec.objective.sign * values[n])
    i = numbers.index(best)
    star = _marks("the best", [best], [(across[i], up[i])], symbol="star", colour=4)
    layout = _layout(f"{x} (star: the best)", y)
    layout["xaxis"] |= _axis(view, x)
    layout["yaxis"] |= _axis(view, y)
    traces = [*([surface] if surface else []), points, {**star, "showlegend": False}]
    return {"data": traces, "layout": layout}


def _surface(
    view: SweepView, x: str, y: str, heights: Sequence[float], numbers: Sequence[int]
) -> Figure | None:
    """Return the surface that lies on the trials; None where it would show what nobody measured."""
    from scipy.interpolate import LinearNDInterpolator

    sides = []
    for name in (x, y):
        found = numeric(view, name, [view.trials[n].params[name] for n in numbers])
        sides.append(np.array(unlog(view, name, found)))
    units = [to_unit([float(v) for v in side]) for side in sides]
    if not spans_a_plane(units):
        return None
    line = np.linspace(0, 1, _GRID)
    across, up = np.meshgrid(line, line)
    z = LinearNDInterpolator(np.column_stack(units), np.array(heights))(across, up)
    places = [side.min() + line * (side.max() - side.min()) for side in sides]
    shown = [
        np.exp(place) if _axis(view, name).get("type") == "log" else place
        for name, place in zip((x, y), places, strict=True)
    ]
    return {
        "type": "contour",
        "x": _rounded(shown[0]),
        "y": _rounded(shown[1]),
        "z": [[None if np.isnan(v) else float(f"{v:.4g}") for v in row] for row in z],
        "ncontours": 9,
        "line": {"width": 0},
        "opacity": 0.6,
        "showscale": False,
        "hoverinfo": "skip",
        "meta": {"scale": True},
    }


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
        "x": _rounded((edges[:-1] + edges[1:]) / 2),
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
            "name": _text(f"{mark} {value:.1f}"),
            "x": [value, value],
            "y": [0, top],
            "hoverinfo": "name",
            "line": {"dash": _DASHES[i % len(_DASHES)], "width": 2},
            "meta": {"colour": (4, 0, 6, 3)[i % 4]},
        }
        for i, (mark, value) in enumerate(marks.items())
    ]
    return {"data": [bars, *lines], "layout": _layout(name, "frames")}


def _lines(
    name: str,
    lines: Mapping[int, Sequence[tuple[float, float]]],
    *,
    colour: int,
    marker: Mapping[str, Any],
) -> Figure:
    """Return one trace with the line of each trial; a trace per trial would be slow to draw."""
    x: list[float | None] = []
    y: list[float | None] = []
    trials: list[int | None] = []
    for number, points in lines.items():
        x += [*(float(f"{a:.5g}") for a, _ in points), None]
        y += [*(float(f"{b:.5g}") for _, b in points), None]
        trials += [*([number] * len(points)), None]
    return {
        "mode": "lines+markers",
        "name": name,
        "x": x,
        "y": y,
        "customdata": trials,
        "line": {"width": 1.2, "dash": _DASHES[colour % len(_DASHES)]},
        "marker": dict(marker),
        "connectgaps": False,
        "meta": {"colour": colour},
    }


def _baselines(view: SweepView, start: float, end: float) -> list[Figure]:
    return [
        {
            "mode": "lines",
            "name": _text(f"{name} {value:.4g}"),
            "x": [start, end],
            "y": [value, value],
            "hoverinfo": "name",
            "line": {"width": 1, "dash": _DASHES[1 + i % (len(_DASHES) - 1)]},
            "meta": {"colour": 7},
        }
        for i, (name, value) in enumerate(view.baselines.items())
    ]


def _layout(x: str, y: str) -> Figure:
    return {"xaxis": {"title": {"text": _text(x)}}, "yaxis": {"title": {"text": _text(y)}}}


def _axis(view: SweepView, name: str) -> Figure:
    parameter = view.spec.search[name]
    if isinstance(parameter, Choice):
        return {
            "tickvals": list(range(len(parameter.values))),
            "ticktext": [_text(str(value)) for value in parameter.values],
            "range": [-0.4, len(parameter.values) - 0.6],
        }
    return {"type": "log", "dtick": "D2"} if parameter.log else {}


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _text(text: str) -> str:
    """Return text as Plotly shows it as it is; it takes some HTML for itself."""
    return escape(text, quote=False)
