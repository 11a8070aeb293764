"""Draws the page's charts, each as an SVG that needs no style or font of the page around it.

Colours are those of Okabe and Ito (Color Universal Design, 2008), which people with any kind of
colour blindness tell apart; where order matters they run from dark to light. No chart relies on
colour alone: lines differ in dashes, points in shape.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.tri import Triangulation

from posetune.report.findings.importance import Importance
from posetune.report.pages.scales import (
    best_values,
    drawable,
    numeric,
    spans_a_plane,
    to_unit,
    unlog,
)
from posetune.report.pages.series import curves_of, parallel_lines
from posetune.report.wording import HUGE, broken, format_measure, short_names
from posetune.spec.parameters import Choice
from posetune.study.states import TrialState
from posetune.study.view import SweepView
from posetune.visible import visible

__all__ = [
    "COLOURS",
    "best_so_far",
    "contour",
    "distribution",
    "importance_bars",
    "learning_curves",
    "parallel_coordinates",
    "slices",
]

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
_SMALL = (3.8, 2.9)
"""Width and height of a chart in inches, as large as a phone shows it without shrinking it."""
_WIDE = (6.6, 3.2)
"""Width and height of a chart with many columns, in inches."""
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "posetune",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.parse_math": False,  # a name with two dollars is no formula
}
_LONG_NUMBER = re.compile(r"(\d\.\d\d)\d+")
"""A coordinate with more digits than a hundredth of a point, which nobody sees."""
_MOST_LINES = 400
"""Number of trials in one chart at most; of more trials the best are shown."""


def _svg(draw: Callable[[Axes], None], size: tuple[float, float] = _SMALL) -> str:
    """Return an SVG of the axes that `draw` fills, with the legend below them."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        entries = len(axes.get_legend_handles_labels()[0])
        if entries:
            figure.set_figheight(size[1] + 0.17 * ((entries + 1) // 2))
            figure.legend(loc="outside lower center", ncols=2, handlelength=2.6)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    # XML takes no control characters, and browsers then nothing of the picture.
    return visible(_LONG_NUMBER.sub(r"\1", out.getvalue()))


_END_MARKS = {
    TrialState.PRUNED: ("cut", "x"),
    TrialState.FAILED: ("failed", "+"),
    TrialState.STOPPED: ("stopped", "s"),
    TrialState.PAUSED: ("paused", "|"),
}
"""How the legend names an end of a curve, and Matplotlib's marker for it."""


def learning_curves(view: SweepView) -> str:
    """Draw every trial's objective over its epochs, with its best epoch and whether it was cut.

    Colour and dashes show the rung at which a trial ended.
    """
    curves = curves_of(view, drawable)

    def draw(axes: Axes) -> None:
        for epoch in curves.ends[:-1]:
            axes.axvline(epoch, color="#bbbbbb", linewidth=0.8, zorder=0)
        labelled: set[int] = set()
        for trial in reversed(view.ranked[:_MOST_LINES]):
            rung = curves.rung_of(trial.number)
            before = len(curves.ends) - 1 - rung
            is_best = view.best is not None and trial.number == view.best.number
            axes.plot(
                *zip(*curves.points[trial.number], strict=True),
                color=COLOURS[before % len(COLOURS)],
                linestyle=_DASHES[before % len(_DASHES)],
                linewidth=2.4 if is_best else 1.0,
                marker=_MARKERS[rung % len(_MARKERS)],
                markersize=4 if is_best else 3,
                alpha=1.0 if is_best else 0.8,
                label=None if rung in labelled else f"to epoch {curves.ends[rung]}",
            )
            labelled.add(rung)
        _mark_epochs(axes, view, curves.points)
        _draw_baselines(axes, view)
        _name_objective(axes, view)
        axes.set_xlabel("epoch (bold: the best trial)")

    return _svg(draw)


def _mark_epochs(
    axes: Axes, view: SweepView, curves: Mapping[int, Sequence[tuple[int, float]]]
) -> None:
    """Mark the epoch of each trial that counts, and where and how its curve ended."""
    shown = view.ranked[:_MOST_LINES]
    chosen = [(t.chosen.epoch, drawable(t.chosen.value)) for t in shown if t.chosen is not None]
    named = [(f"{view.spec.objective.select} epoch", "*", COLOURS[6], chosen)]
    for state, (name, mark) in _END_MARKS.items():
        last = [curves[t.number][-1] for t in shown if t.state == state]
        named.append((name, mark, COLOURS[4], last))
    for name, mark, colour, points in named:
        if points:
            across, up = zip(*points, strict=True)
            axes.scatter(across, up, marker=mark, color=colour, s=30, zorder=4, label=name)


def best_so_far(view: SweepView) -> str:
    """Draw the best value over the training time of all trials so far.

    It is the best of any epoch, or of complete trials where the last epoch counts.
    The time is in GPU-hours, or in hours for a sweep without GPUs.
    """
    points = [(point.hours, drawable(point.value)) for point in best_values(view)]
    gpu = bool(view.spec.resources.gpu)

    def draw(axes: Axes) -> None:
        if points:
            axes.step(*zip(*points, strict=True), where="post", color=COLOURS[0], linewidth=2)
            axes.plot(*zip(*points[:-1], strict=True), "o", color=COLOURS[0], markersize=4)
        _draw_baselines(axes, view)
        _name_objective(axes, view)
        axes.set_xlim(left=0)
        axes.set_xlabel("GPU-hours of training" if gpu else "hours of training (no GPU)")

    return _svg(draw)


def importance_bars(found: Importance) -> str:
    """Draw the importance of each parameter as a bar, in percent."""
    names = list(found.params)

    def draw(axes: Axes) -> None:
        shares = [100 * found.params[name] for name in names]
        bars = axes.barh(short_names(names), shares, color=COLOURS[0])
        axes.bar_label(bars, fmt="%.0f %%", padding=3)
        axes.invert_yaxis()
        axes.set_xlim(0, max(shares) * 1.25)
        axes.set_xlabel("share, %")
        axes.grid(visible=False)

    return _svg(draw)


def slices(view: SweepView, values: Mapping[int, float]) -> list[tuple[str, str]]:
    """Draw the trials' values over each parameter alone.

    Args:
        view: the sweep.
        values: value of each trial to draw, by the trial's number.

    Returns:
        Name of each searched parameter and the SVG of its chart.
    """
    return [(name, _slice(view, values, name)) for name in view.spec.search]


def _slice(view: SweepView, values: Mapping[int, float], name: str) -> str:
    numbers = list(values)
    order = np.argsort(np.argsort(numbers))

    def draw(axes: Axes) -> None:
        x = [view.trials[n].params[name] for n in numbers]
        spread = axes.scatter(
            numeric(view, name, x),
            [drawable(values[n]) for n in numbers],
            c=order,
            cmap="cividis",
            s=22,
            edgecolors="black",
            linewidths=0.4,
        )
        _scale(axes, view, name, vertical=False)
        _name_objective(axes, view)
        colours = axes.figure.colorbar(spread, ax=axes, ticks=[0, max(len(numbers) - 1, 1)])
        colours.ax.set_yticklabels(["first", "last"])
        axes.set_xlabel(name)

    return _svg(draw)


def contour(view: SweepView, values: Mapping[int, float], x: str, y: str) -> str:
    """Draw the trials' values over two parameters, with a surface between the trials.

    Args:
        view: the sweep.
        values: value of each trial to draw, by the trial's number.
        x: name of the parameter along the horizontal axis.
        y: name of the parameter along the vertical axis.
    """
    numbers = list(values)
    across = numeric(view, x, [view.trials[n].params[x] for n in numbers])
    up = numeric(view, y, [view.trials[n].params[y] for n in numbers])
    heights = [drawable(values[n]) for n in numbers]

    def draw(axes: Axes) -> None:
        plane = [to_unit(unlog(view, x, across)), to_unit(unlog(view, y, up))]
        shades: Any = {"cmap": "cividis_r", "vmin": min(heights), "vmax": max(heights)}
        if spans_a_plane(plane):
            corners = Triangulation(*plane).triangles  # neighbours as the scales show them
            mesh = Triangulation(across, up, corners)
            axes.tricontourf(mesh, heights, levels=8, alpha=0.75, **shades)
        points = axes.scatter(
            across, up, c=heights, s=34, edgecolors="black", linewidths=0.8, **shades
        )
        bar = axes.figure.colorbar(points, ax=axes)
        bar.set_label(view.spec.objective.metric.rpartition("/")[2])
        best = min(values, key=lambda n: view.spec.objective.sign * values[n])
        i = numbers.index(best)
        axes.plot(across[i], up[i], "*", color=COLOURS[4], markersize=13, markeredgecolor="black")
        _scale(axes, view, x, vertical=False)
        _scale(axes, view, y, vertical=True)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(visible=False)

    return _svg(draw)


def parallel_coordinates(view: SweepView, values: Mapping[int, float]) -> str:
    """Draw each trial as a line across all parameters to its value; better ones are darker.

    Args:
        view: the sweep.
        values: value of each trial to draw, by the trial's number.
    """
    lines = parallel_lines(view, values, most=_MOST_LINES)
    shades = mpl.colormaps["cividis_r"]

    def draw(axes: Axes) -> None:
        for place, heights in enumerate(lines.heights.values()):
            share = place / max(len(lines.heights) - 1, 1)
            best = place == len(lines.heights) - 1
            axes.plot(
                range(len(lines.axes)),
                heights,
                color=COLOURS[4] if best else shades(share),
                linewidth=2.6 if best else 0.8 + share,
                marker="o",
                markersize=3,
                zorder=3 if best else 2,
            )
        axes.set_xticks(range(len(lines.axes)), [broken(name) for name in lines.axes])
        axes.set_yticks([])
        axes.grid(axis="x", color="#888888")
        for spine in axes.spines.values():
            spine.set_visible(False)
        for i, (low, high) in enumerate(lines.ends):
            axes.annotate(low, (i, -0.03), ha="center", va="top", fontsize=8)
            axes.annotate(high, (i, 1.03), ha="center", va="bottom", fontsize=8)
        axes.set_ylim(-0.12, 1.12)

    return _svg(draw, _WIDE)


def distribution(errors_n: Sequence[float], name: str, marks: Mapping[str, float]) -> str:
    """Draw how the frames' errors are distributed, with vertical lines at reference values.

    Args:
        errors_n: error of each frame, (N,), in the unit of the metric.
        name: name of the metric, for the axis.
        marks: reference values in the same unit, by the name of each.
    """

    def draw(axes: Axes) -> None:
        drawn_n = [drawable(error) for error in errors_n]
        axes.hist(
            drawn_n,
            bins=40,
            color=COLOURS[5],
            edgecolor="white",
            linewidth=0.4,
        )
        for i, (mark, value) in enumerate(marks.items()):
            axes.axvline(
                drawable(value),
                color=COLOURS[(4, 0, 6, 3)[i % 4]],
                linestyle=_DASHES[i % len(_DASHES)],
                label=f"{mark} {format_measure(value, 1)}",
            )
        axes.set_xlabel(name)
        axes.set_ylabel("frames")

    return _svg(draw)


def _draw_baselines(axes: Axes, view: SweepView) -> None:
    for i, (name, value) in enumerate(view.baselines.items()):
        axes.axhline(
            drawable(value),
            color="#555555",
            linestyle=_DASHES[1 + i % (len(_DASHES) - 1)],
            linewidth=1,
            label=f"{name} {value:.4g}",
        )


def _name_objective(axes: Axes, view: SweepView) -> None:
    axes.set_ylabel(view.spec.objective.metric)
    if max(map(abs, axes.get_ylim())) > HUGE:  # the trials that diverged beside those that did not
        axes.set_yscale("symlog")


def _scale(axes: Axes, view: SweepView, name: str, *, vertical: bool) -> None:
    parameter = view.spec.search[name]
    if isinstance(parameter, Choice):
        ticks = axes.set_yticks if vertical else axes.set_xticks
        ticks(range(len(parameter.values)), [str(value) for value in parameter.values])
        (axes.set_ylim if vertical else axes.set_xlim)(-0.4, len(parameter.values) - 0.6)
    elif parameter.log:
        (axes.set_yscale if vertical else axes.set_xscale)("log")
        axis = axes.yaxis if vertical else axes.xaxis
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
