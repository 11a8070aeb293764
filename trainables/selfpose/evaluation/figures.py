"""Draws sheets of poses: a line per frame with its image and its true and predicted pose.

Each pose is shown from four sides.

Frames and units:
    3D      camera axes (x right, y down, z away from the camera); the truth in millimetres
    2D      crop coordinates in [-1, 1] (x right, y down); centre of pixel i of S at -1 + 2i/(S-1)
Shape letters:
    N frames, J joints, S pixels of an image's side
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from selfpose.method.metrics import p_mpjpe
from selfpose.method.procrustes import procrustes_align
from selfpose.method.skeleton import Layout

__all__ = ["SheetRow", "draw_sheet"]


@dataclass(frozen=True)
class _Ink:
    """Holds the colours and the line width of one pose.

    Limbs of the left side are lighter, so that a swap of the sides can be seen.
    """

    left: str
    other: str
    width: float


TRUE = _Ink(left="#7fcf7a", other="#1a9850", width=2.6)
PREDICTED = _Ink(left="#f7945d", other="#d73027", width=1.4)

VIEWS: dict[str, tuple[float, float]] = {
    "camera": (0.0, 0.0),
    "half turned": (45.0, 0.0),
    "from the side": (90.0, 0.0),
    "from above": (0.0, 90.0),
}
"""Turn of the camera frame about the vertical axis y, then about x, in degrees, for each view. All
views are orthographic."""

_CELL_INCHES = 1.6
_LABEL_INCHES = 1.25
_HEADER_INCHES = 0.82
_DPI = 100
_VEIL = 0.55
"""Share of white that is laid over an image, so that the 2D poses on it can be seen."""


@dataclass(frozen=True)
class SheetRow:
    """Holds everything that one line of a sheet shows."""

    label: str
    """Text below the score, at the left."""
    image_ss3: NDArray[np.uint8] | None
    """The input image, (S, S, 3), RGB; None if the model sees no image."""
    joints_2d_j2: NDArray[Any]
    """The 2D pose that was lifted, (J, 2), in crop coordinates."""
    truth_2d_j2: NDArray[Any] | None
    """The true 2D pose, (J, 2), in crop coordinates; None draws none."""
    truth_3d_j3: NDArray[Any] | None
    """The true pose, (J, 3), in mm in camera axes; None if the data has none."""
    predicted_3d_j3: NDArray[Any]
    """The predicted pose, (J, 3), in any unit and frame; it is aligned before it is drawn."""
    score: str | None = None
    """The frame's error with its unit, as text; None writes the P-MPJPE."""


def draw_sheet(rows: Sequence[SheetRow], *, layout: Layout, title: str = "") -> bytes:
    """Return a sheet with one line of pictures per row, as the content of a PNG file.

    The prediction is drawn after a proper similarity alignment, as it is scored; without a true
    pose it is drawn as it is. A prediction that is not finite is left out.

    Args:
        rows: the lines of the sheet, at least one.
        layout: layout of the joints.
        title: text above the sheet, which says how the rows were chosen.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("a sheet needs at least one row, got none")
    columns = 2 + len(VIEWS)
    width = _LABEL_INCHES + columns * _CELL_INCHES
    height = _HEADER_INCHES + len(rows) * _CELL_INCHES
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    for i, row in enumerate(rows):
        bottom = 1 - (_HEADER_INCHES + (i + 1) * _CELL_INCHES) / height
        cells = [
            figure.add_axes(
                (
                    (_LABEL_INCHES + k * _CELL_INCHES) / width,
                    bottom,
                    0.96 * _CELL_INCHES / width,
                    0.96 * _CELL_INCHES / height,
                )
            )
            for k in range(columns)
        ]
        aligned_j3, error = _align(row)
        _label_row(figure, row, error=error, top=bottom + 0.9 * _CELL_INCHES / height)
        _draw_image(cells[0], row.image_ss3)
        _draw_2d(cells[1], row, layout=layout)
        _draw_views(cells[2:], row.truth_3d_j3, aligned_j3=aligned_j3, layout=layout)
    _write_header(figure, rows, title=title, layout=layout)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()


def _align(row: SheetRow) -> tuple[NDArray[np.float64], float]:
    """Return the predicted pose as it is drawn, (J, 3), and its P-MPJPE in mm.

    Without a true pose the P-MPJPE is NaN.
    """
    if row.truth_3d_j3 is None:
        return row.predicted_3d_j3.astype(np.float64), float("nan")
    pair = row.predicted_3d_j3[None], row.truth_3d_j3[None]
    return procrustes_align(*pair, reflection="never")[0], float(p_mpjpe(*pair)[0])


def _label_row(figure: Figure, row: SheetRow, *, error: float, top: float) -> None:
    """Write a row's score and its name at its left."""
    score = row.score or (f"{error:.0f} mm" if np.isfinite(error) else "not finite")
    x = 0.08 / figure.get_figwidth()
    figure.text(x, top, score, fontsize=11, weight="bold", va="top")
    below = top - 0.24 / figure.get_figheight()
    # A label names what the data are of, in their own words: two dollars make no formula of it.
    style: dict[str, Any] = {"fontsize": 8, "color": "#555555", "linespacing": 1.35}
    figure.text(x, below, row.label, va="top", parse_math=False, **style)


def _write_header(figure: Figure, rows: Sequence[SheetRow], *, title: str, layout: Layout) -> None:
    """Write the title, the names of the columns, and the legend of the colours."""
    width, height = figure.get_figwidth(), figure.get_figheight()
    first = ["input image", "2D: true, predicted"]
    if rows[0].image_ss3 is None:
        first = ["(sees no image)", "given: true 2D pose"]
    for k, name in enumerate([*first, *VIEWS]):
        x = (_LABEL_INCHES + (k + 0.48) * _CELL_INCHES) / width
        figure.text(x, 1 - 0.7 / height, name, fontsize=9, ha="center", va="center")
    figure.text(0.08 / width, 1 - 0.2 / height, title, fontsize=10, va="center", parse_math=False)
    known = rows[0].truth_3d_j3 is not None
    inks = {
        "true" if known else "true (2D only)": TRUE,
        "predicted, aligned" if known else "predicted": PREDICTED,
    }
    lines = {
        f"{name}{side}": (ink.left if side else ink.other)
        for name, ink in inks.items()
        for side in (("", ", left side") if _has_sides(layout) else ("",))
    }
    figure.legend(
        [Line2D([], [], color=colour, linewidth=2) for colour in lines.values()],
        list(lines),
        loc="center right",
        bbox_to_anchor=(1.0, 1 - 0.46 / height),
        ncols=len(lines),
        fontsize=8,
        frameon=False,
    )


def _has_sides(layout: Layout) -> bool:
    """Return whether some joints are of the left side; those of a single hand are not."""
    return any(name.startswith("left") for name in layout.joints)


def _draw_image(axes: Axes, image_ss3: NDArray[np.uint8] | None, *, veil: float = 0.0) -> float:
    """Draw an input image, or an empty square, in crop coordinates; return half its side."""
    _clear(axes)
    side = 1.0
    if image_ss3 is None:
        axes.set_facecolor("#f7f7f7")
    else:
        # The centres of the first and last pixel are at -1 and 1, so the picture's edges are half
        # a pixel further out.
        size = image_ss3.shape[0]
        side = size / (size - 1)
        shown_ss3 = (image_ss3 * (1 - veil) + 255 * veil).astype(np.uint8)
        axes.imshow(shown_ss3, extent=(-side, side, side, -side), interpolation="nearest")
    axes.set_xlim(-side, side)
    axes.set_ylim(side, -side)
    return side


def _draw_2d(axes: Axes, row: SheetRow, *, layout: Layout) -> None:
    """Draw the true and the lifted 2D pose over the paled image."""
    _draw_image(axes, row.image_ss3, veil=_VEIL)
    if row.truth_2d_j2 is not None:
        _draw_limbs(axes, row.truth_2d_j2, layout=layout, ink=TRUE)
    if row.image_ss3 is not None or row.truth_2d_j2 is None:
        _draw_limbs(axes, row.joints_2d_j2, layout=layout, ink=PREDICTED)


def _draw_views(
    views: Sequence[Axes],
    truth_j3: NDArray[Any] | None,
    *,
    aligned_j3: NDArray[np.float64],
    layout: Layout,
) -> None:
    """Draw the true and the aligned predicted pose from each of `VIEWS`."""
    shown_j3 = aligned_j3 if truth_j3 is None else truth_j3
    known = bool(np.isfinite(shown_j3).all())
    centre_13 = shown_j3.mean(axis=0, keepdims=True) if known else np.zeros((1, 3))
    # All views of a row have one scale, so that they can be compared.
    reach = 1.12 * float(np.linalg.norm(shown_j3 - centre_13, axis=1).max()) if known else 1.0
    reach = reach if reach > 0 else 1.0
    for axes, angles in zip(views, VIEWS.values(), strict=True):
        _clear(axes)
        axes.set_facecolor("#f7f7f7")
        axes.set_xlim(-reach, reach)
        axes.set_ylim(reach, -reach)
        turn_33 = _turn(*angles)
        if truth_j3 is not None:
            _draw_limbs(axes, (truth_j3 - centre_13) @ turn_33.T, layout=layout, ink=TRUE)
        if np.isfinite(aligned_j3).all():
            _draw_limbs(axes, (aligned_j3 - centre_13) @ turn_33.T, layout=layout, ink=PREDICTED)


def _draw_limbs(axes: Axes, joints_jd: NDArray[Any], *, layout: Layout, ink: _Ink) -> None:
    """Draw the limbs of one pose by their first two coordinates."""
    if not np.isfinite(joints_jd).all():
        return
    segments = [joints_jd[[child, parent], :2] for child, parent in layout.limbs]
    colours = [
        ink.left if layout.joints[child].startswith("left") else ink.other
        for child, _ in layout.limbs
    ]
    axes.add_collection(
        LineCollection(segments, colors=colours, linewidths=ink.width, capstyle="round"),
        autolim=False,
    )


def _clear(axes: Axes) -> None:
    """Remove ticks and frame, and give both axes the same scale."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _turn(around_y_deg: float, around_x_deg: float) -> NDArray[np.float64]:
    """Return the rotation about y, then about x, for column vectors in camera axes, (3, 3)."""
    y, x = np.deg2rad((around_y_deg, around_x_deg))
    turn_y_33 = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    turn_x_33 = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    return np.asarray(turn_x_33 @ turn_y_33, dtype=np.float64)
