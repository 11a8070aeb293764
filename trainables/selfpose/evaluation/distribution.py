"""Draws the distribution of an error per activity, as the supplementary's Figure 1 shows it.

Shape letters:
    N frames
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from selfpose.evaluation.literature import ACTIVITIES, short_name

__all__ = ["draw_distribution"]

_LEAST_FOR_A_SHAPE = 10
"""Number of frames below which each frame is drawn as a dot, because a smooth outline would show
more than is known."""
_TOP_SHARE = 0.995
"""Share of frames that the axis shows; the title says how many frames lie above its end."""
_COLOUR = "#4575b4"
_DPI = 100


def draw_distribution(
    error_n: NDArray[Any],
    activity_n: NDArray[Any],
    motion_n: NDArray[Any],
    *,
    names: Sequence[str],
    unit: str,
) -> bytes:
    """Return a PNG file: one violin per activity and one for all frames.

    Each shows the quartiles as a bar, the median as a white dot and the mean as a diamond.

    Args:
        error_n: error of each frame, (N,), in `unit`; an error that is not finite is counted but
            not drawn.
        activity_n: index of each frame's activity in `names`, (N,).
        motion_n: label of each frame's motion, (N,).
        names: names of the activities.
        unit: unit of the error, `mm` or `px`.
    """
    order = {name: place for place, name in enumerate(ACTIVITIES.values())}
    present = sorted(
        (int(activity) for activity in np.unique(activity_n)),
        key=lambda activity: (order.get(short_name(names[activity]) or "", -1), activity),
    )
    members = [np.flatnonzero(activity_n == activity) for activity in present]
    labels = [short_name(names[activity]) or names[activity] for activity in present]
    members, labels = [*members, np.arange(len(error_n))], [*labels, "all"]
    finite_n = np.isfinite(error_n)
    top = float(np.quantile(error_n[finite_n], _TOP_SHARE)) * 1.05 if finite_n.any() else 1.0
    figure = Figure(figsize=(max(6.0, 0.62 * len(members) + 1.2), 4.2), dpi=_DPI)
    axes = figure.add_axes(
        (0.7 / figure.get_figwidth(), 0.21, 1 - 0.85 / figure.get_figwidth(), 0.7)
    )
    for place, rows in enumerate(members):
        _draw_one(axes, place, error_n[rows[finite_n[rows]]])
    counts = [(len(rows), len(np.unique(motion_n[rows]))) for rows in members]
    ticks = [f"{n}\n{f:,}\n{m:,}" for n, (f, m) in zip(labels, counts, strict=True)]
    axes.set_xticks(range(len(members)), ticks, fontsize=7.5, parse_math=False)
    axes.set_xlim(-0.6, len(members) - 0.4)
    axes.set_ylim(0, top)
    axes.set_ylabel(f"{'P-MPJPE' if unit == 'mm' else '2D error'} of a frame, {unit}")
    axes.grid(axis="y", alpha=0.3)
    axes.axvline(len(members) - 1.5, color="#999999", linewidth=0.8)
    cut = int((error_n > top).sum())
    axes.set_title(
        f"bar: quartiles, white: median, diamond: mean{f'; {cut} frames lie above' if cut else ''}",
        fontsize=9,
        loc="left",
    )
    figure.text(0.5, 0.02, "activity, frames, motions", ha="center", fontsize=8, color="#555555")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()


def _draw_one(axes: Axes, place: int, error_n: NDArray[Any]) -> None:
    """Draw the distribution of one activity's errors, (N,), at a place on the x axis."""
    if not len(error_n):
        return
    if len(error_n) >= _LEAST_FOR_A_SHAPE and np.ptp(error_n) > 0:
        violin = axes.violinplot(error_n, [place], widths=0.85, showextrema=False)
        for body in violin["bodies"]:  # type: ignore[attr-defined]
            body.set(facecolor=_COLOUR, alpha=0.45, edgecolor="none")
        low, middle, high = np.quantile(error_n, [0.25, 0.5, 0.75])
        axes.vlines(place, low, high, color=_COLOUR, linewidth=4)
        axes.plot(place, middle, "o", color="white", markersize=3.5)
    else:
        axes.plot(np.full(len(error_n), place), error_n, ".", color=_COLOUR, alpha=0.6)
    axes.plot(place, error_n.mean(), "D", color="black", markersize=4)
