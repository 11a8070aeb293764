"""Describes the charts of the search space: what a browser draws over the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from posetune.report.findings.importance import Importance
from posetune.report.pages.figures import Figure, layout_of, lines_of, marks_at, plain_text, rounded
from posetune.report.pages.scales import numeric, spans_a_plane, to_unit, unlog
from posetune.report.pages.series import parallel_lines
from posetune.report.wording import broken, short_names
from posetune.spec.parameters import Choice
from posetune.study.view import SweepView

__all__ = ["contour", "importance_bars", "parallel_coordinates", "slices"]

_SHADES = 8
"""Number of groups by rank that the lines of the parallel coordinates are drawn in."""
_GRID = 24
"""Number of places along each side of a surface."""


def importance_bars(found: Importance) -> Figure:
    """Describe the importance of each parameter as a bar, in percent."""
    names = list(found.params)
    shares = [100 * found.params[name] for name in names]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [plain_text(name) for name in short_names(names)],
        "x": shares,
        "text": [f"{share:.0f} %" for share in shares],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertext": [plain_text(name) for name in names],
        "hoverinfo": "text",
        "showlegend": False,
        "meta": {"colour": 0},
    }
    layout = layout_of("share, %", "")
    layout["yaxis"] |= {"autorange": "reversed", "type": "category"}
    layout["xaxis"] |= {"range": [0, max(shares) * 1.25]}
    return {"data": [bars], "layout": layout}


def parallel_coordinates(view: SweepView, values: Mapping[int, float]) -> Figure:
    """Describe each trial as a line across all parameters to its value; better ones stand out.

    Args:
        view: the sweep.
        values: value of each trial to draw, by the trial's number.
    """
    drawn = parallel_lines(view, values)
    ranked = list(drawn.heights)
    data: list[Figure] = []
    for group in np.array_split(np.array(ranked[:-1], dtype=int), _SHADES):
        if len(group):
            share = len(data) / (_SHADES - 1)
            lines = {int(n): list(enumerate(drawn.heights[int(n)])) for n in group}
            trace = lines_of("", lines, colour=0, marker={"size": 5})
            data.append({**trace, "meta": {"share": share}, "showlegend": False})
    best = ranked[-1]
    line = lines_of(
        "the best", {best: list(enumerate(drawn.heights[best]))}, colour=4, marker={"size": 7}
    )
    data.append({**line, "line": {"width": 3, "dash": "solid"}, "showlegend": False})
    layout = layout_of("", "")
    layout["xaxis"] |= {
        "tickvals": list(range(len(drawn.axes))),
        "ticktext": [plain_text(broken(name)).replace("\n", "<br>") for name in drawn.axes],
        "range": [-0.5, len(drawn.axes) - 0.5],
        "showgrid": True,
        "ticklabeloverflow": "allow",
    }
    layout["yaxis"] |= {"visible": False, "range": [-0.12, 1.12]}
    layout["annotations"] = [
        {"x": i, "y": y, "text": plain_text(text), "showarrow": False}
        for i, (low, high) in enumerate(drawn.ends)
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
        layout = layout_of(name, view.spec.objective.metric)
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
            "colorbar": {"title": {"text": plain_text(metric), "side": "right"}, "thickness": 12},
        },
        "showlegend": False,
        "meta": {"scale": True},
    }
    surface = _surface(view, x, y, heights, numbers)
    if surface is not None:
        surface |= {"zmin": ends["cmin"], "zmax": ends["cmax"], "reversescale": low_is_best}
    best = min(values, key=lambda n: view.spec.objective.sign * values[n])
    i = numbers.index(best)
    star = marks_at("the best", [best], [(across[i], up[i])], symbol="star", colour=4)
    layout = layout_of(x, y)
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
        "x": rounded(shown[0]),
        "y": rounded(shown[1]),
        "z": [[None if np.isnan(v) else float(f"{v:.4g}") for v in row] for row in z],
        "ncontours": 9,
        "line": {"width": 0},
        "opacity": 0.6,
        "showscale": False,
        "hoverinfo": "skip",
        "meta": {"scale": True},
    }


def _axis(view: SweepView, name: str) -> Figure:
    parameter = view.spec.search[name]
    if isinstance(parameter, Choice):
        return {
            "tickvals": list(range(len(parameter.values))),
            "ticktext": [plain_text(str(value)) for value in parameter.values],
            "range": [-0.4, len(parameter.values) - 0.6],
        }
    return {"type": "log", "dtick": "D2"} if parameter.log else {}
