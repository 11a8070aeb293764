"""Pictures of poses: one row per frame, the image, and true and predicted pose from four sides.

Frames and units:
    3D      camera axes (x right, y down, z away from the camera); the truth in millimetres
    2D      crop coordinates in [-1, 1] (x right, y down); centre of pixel i of S at -1 + 2i/(S-1)
Shape letters:
    N frames, J joints, S pixels of an image's side
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from selfpose.metrics import p_mpjpe
from selfpose.procrustes import procrustes_align
from selfpose.skeleton import Layout

__all__ = ["SheetRow", "draw_sheet", "qualitative_sheet"]

TRUTH_COLOUR = "#1a9850"
PREDICTED_COLOUR = "#d73027"
SIDE_COLOURS = {"left": "#35a7ff", "right": "#ff9f1c", "middle": "#f2f2f2"}

# Turns of the camera frame: about the vertical axis y, then about x (degrees). Orthographic.
VIEWS: dict[str, tuple[float, float]] = {
    "camera": (0.0, 0.0),
    "half turned": (45.0, 0.0),
    "from the side": (90.0, 0.0),
    "from above": (0.0, 90.0),
}

_CELL_INCHES = 1.5
_LABEL_INCHES = 1.1
_HEADER_INCHES = 0.55
_DPI = 100


@dataclass(frozen=True)
class SheetRow:
    """One frame of a sheet."""

    label: str
    """Shown above the error at the left."""
    image_ss3: NDArray[np.uint8] | None
    """The input image, (S, S, 3), RGB; None draws the 2D pose on an empty square."""
    joints_2d_j2: NDArray[Any]
    """The 2D pose to draw over the image, (J, 2), crop coordinates."""
    truth_3d_j3: NDArray[Any]
    """The true pose, (J, 3), camera axes, mm."""
    predicted_3d_j3: NDArray[Any]
    """The predicted pose, (J, 3), any unit and frame; it is aligned before it is drawn."""


def qualitative_sheet(
    images_nss3: NDArray[np.uint8] | None,
    joints_2d_nj2: NDArray[Any],
    truth_3d_nj3: NDArray[Any],
    predicted_3d_nj3: NDArray[Any],
    *,
    layout: Layout,
    out: Path,
) -> None:
    """Write a sheet with one row per frame as the PNG file `out`.

    Args:
        images_nss3: input images, (N, S, S, 3), RGB, or None where the model sees 2D poses.
        joints_2d_nj2: 2D poses to draw over the images, (N, J, 2), crop coordinates.
        truth_3d_nj3: true poses, (N, J, 3), camera axes, mm.
        predicted_3d_nj3: predicted poses, (N, J, 3), any unit and frame.
        layout: the joints' layout.
        out: the file to write; moved into place when whole.
    """
    rows = [
        SheetRow(
            label=f"frame {i + 1}",
            image_ss3=None if images_nss3 is None else images_nss3[i],
            joints_2d_j2=joints_2d_nj2[i],
            truth_3d_j3=truth_3d_nj3[i],
            predicted_3d_j3=predicted_3d_nj3[i],
        )
        for i in range(len(truth_3d_nj3))
    ]
    partial = out.with_name(f".{out.name}.partial")
    partial.write_bytes(draw_sheet(rows, layout=layout))
    partial.replace(out)


def draw_sheet(rows: Sequence[SheetRow], *, layout: Layout) -> bytes:
    """Return a sheet with one line of pictures per row, as the content of a PNG file.

    The prediction is drawn after a proper similarity alignment, as it is scored; one that is not
    finite is left out.

    Args:
        rows: at least one.
        layout: the joints' layout.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("a sheet needs at least one row, got none")
    columns = 1 + len(VIEWS)
    width = _LABEL_INCHES + columns * _CELL_INCHES
    height = _HEADER_INCHES + len(rows) * _CELL_INCHES
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    truth_nj3 = np.stack([row.truth_3d_j3 for row in rows])
    predicted_nj3 = np.stack([row.predicted_3d_j3 for row in rows])
    aligned_nj3 = procrustes_align(predicted_nj3, truth_nj3, reflection="never")
    error_n = p_mpjpe(predicted_nj3, truth_nj3)

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
        _label_row(
            figure, row.label, error=float(error_n[i]), y=bottom + 0.48 * _CELL_INCHES / height
        )
        _draw_image(cells[0], row, layout=layout)
        _draw_views(cells[1:], truth_nj3[i], aligned_j3=aligned_nj3[i], layout=layout)
    _write_header(figure, width=width, height=height)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()


def _label_row(figure: Figure, label: str, *, error: float, y: float) -> None:
    """Write a row's name and its error at its left."""
    text = f"{error:.0f} mm" if np.isfinite(error) else "not finite"
    x = 0.08 / figure.get_figwidth()
    line = 0.11 / figure.get_figheight()
    figure.text(x, y + 0.3 * line, label, fontsize=8, color="#555555", va="bottom")
    figure.text(x, y - 0.3 * line, text, fontsize=11, weight="bold", va="top")


def _write_header(figure: Figure, *, width: float, height: float) -> None:
    """Write the columns' names, and what the colours mean."""
    titles = ["2D pose", *VIEWS]
    for k, title in enumerate(titles):
        x = (_LABEL_INCHES + (k + 0.48) * _CELL_INCHES) / width
        figure.text(x, 1 - 0.44 / height, title, fontsize=9, ha="center", va="center")
    figure.text(0.08 / width, 1 - 0.44 / height, "P-MPJPE", fontsize=9, va="center")
    lines = {
        "left": SIDE_COLOURS["left"],
        "right": SIDE_COLOURS["right"],
        "true pose": TRUTH_COLOUR,
        "prediction, aligned": PREDICTED_COLOUR,
    }
    figure.legend(
        [Line2D([], [], color=colour, linewidth=2) for colour in lines.values()],
        list(lines),
        loc="upper right",
        bbox_to_anchor=(1.0, 1 + 0.04 / height),
        ncols=len(lines),
        fontsize=8,
        frameon=False,
    )


def _draw_image(axes: Axes, row: SheetRow, *, layout: Layout) -> None:
    """Draw the input image and the 2D pose over it."""
    _clear(axes)
    side = 1.0
    if row.image_ss3 is None:
        axes.set_facecolor("#3b3b3b")
    else:
        # Pixel centres of the first and last pixel are at -1 and 1, so the edges lie half a
        # pixel further out.
        size = row.image_ss3.shape[0]
        side = size / (size - 1)
        axes.imshow(row.image_ss3, extent=(-side, side, side, -side), interpolation="nearest")
    axes.set_xlim(-side, side)
    axes.set_ylim(side, -side)
    colours = [SIDE_COLOURS[_side(layout, child)] for child, _ in layout.limbs]
    _draw_limbs(axes, row.joints_2d_j2, layout=layout, colours="#000000", width=2.6)
    _draw_limbs(axes, row.joints_2d_j2, layout=layout, colours=colours, width=1.5)


def _draw_views(
    views: Sequence[Axes],
    truth_j3: NDArray[Any],
    *,
    aligned_j3: NDArray[np.float64],
    layout: Layout,
) -> None:
    """Draw the true and the aligned predicted pose from each of `VIEWS`."""
    centre_13 = truth_j3.mean(axis=0, keepdims=True)
    # One scale for all views of a row, so that they can be compared.
    reach = 1.08 * float(np.linalg.norm(truth_j3 - centre_13, axis=1).max())
    reach = reach if reach > 0 else 1.0
    for axes, angles in zip(views, VIEWS.values(), strict=True):
        _clear(axes)
        axes.set_facecolor("#f7f7f7")
        axes.set_xlim(-reach, reach)
        axes.set_ylim(reach, -reach)
        turn_33 = _turn(*angles)
        _draw_limbs(
            axes, (truth_j3 - centre_13) @ turn_33.T, layout=layout, colours=TRUTH_COLOUR, width=2.4
        )
        if np.isfinite(aligned_j3).all():
            _draw_limbs(
                axes,
                (aligned_j3 - centre_13) @ turn_33.T,
                layout=layout,
                colours=PREDICTED_COLOUR,
                width=1.3,
            )


def _draw_limbs(
    axes: Axes,
    joints_jd: NDArray[Any],
    *,
    layout: Layout,
    colours: str | Iterable[str],
    width: float,
) -> None:
    """Draw the limbs of one pose by their first two coordinates."""
    if not np.isfinite(joints_jd).all():
        return
    segments = [joints_jd[[child, parent], :2] for child, parent in layout.limbs]
    axes.add_collection(
        LineCollection(segments, colors=colours, linewidths=width, capstyle="round"), autolim=False
    )


def _clear(axes: Axes) -> None:
    """Take ticks and frame away, and keep lengths equal on both axes."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _side(layout: Layout, joint: int) -> str:
    """Return left, right or middle: which side of the body a joint is on."""
    if layout.mirror[joint] == joint:
        return "middle"
    return "left" if layout.joints[joint].startswith("left") else "right"


def _turn(around_y_deg: float, around_x_deg: float) -> NDArray[np.float64]:
    """Return the rotation about y and then x, for column vectors, (3, 3)."""
    y, x = np.deg2rad((around_y_deg, around_x_deg))
    turn_y_33 = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    turn_x_33 = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    return np.asarray(turn_x_33 @ turn_y_33, dtype=np.float64)
