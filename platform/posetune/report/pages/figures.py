"""Makes the parts of Plotly figures that the page's charts share: traces and axes, as plain JSON.

A trace says by its `customdata` which trial each of its points belongs to; the page's script makes
hover texts and the selection of a trial from that alone, so no chart has a script of its own.
Colours are left to the script, because they depend on the light or dark scheme of whoever looks: a
trace names its place in the palette (`meta.colour`), its rank from worst to best (`meta.share`), or
that its numbers are a scale (`meta.scale`).

No chart relies on colour alone: lines differ in dashes, points in shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, TypeAlias

__all__ = ["DASHES", "Figure", "layout_of", "lines_of", "marks_at", "plain_text", "rounded"]

Figure: TypeAlias = dict[str, Any]
"""A figure of Plotly: its traces in `data` and its axes in `layout`."""

DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "5px,2px,1px,2px")


def lines_of(
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
        "line": {"width": 1.2, "dash": DASHES[colour % len(DASHES)]},
        "marker": dict(marker),
        "connectgaps": False,
        "meta": {"colour": colour},
    }


def marks_at(
    name: str,
    numbers: Sequence[int],
    at: Sequence[tuple[float, float]],
    *,
    symbol: str,
    colour: int,
) -> Figure:
    """Return one trace with a mark for each of the trials `numbers`, at its place of `at`."""
    return {
        "mode": "markers",
        "name": name,
        "x": [x for x, _ in at],
        "y": [y for _, y in at],
        "customdata": list(numbers),
        "marker": {"symbol": symbol, "size": 11, "line": {"width": 2}},
        "meta": {"colour": colour},
    }


def layout_of(x: str, y: str) -> Figure:
    """Return the axes of a figure with their names."""
    return {
        "xaxis": {"title": {"text": plain_text(x)}},
        "yaxis": {"title": {"text": plain_text(y)}},
    }


def rounded(values: Any) -> list[float]:
    """Return numbers with as many digits as anybody sees, so that the page stays small."""
    return [float(f"{value:.5g}") for value in values]


def plain_text(text: str) -> str:
    """Return text as Plotly shows it as it is; it takes some HTML for itself."""
    return escape(text, quote=False)
