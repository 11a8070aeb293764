"""Draws the shaded capsules of a body into a picture.

Read `draw_body` first. Each capsule is drawn only in its own box of pixels, in this order: nearest
point on the axis, distance, cover, normal, depth test, colour. The soft edge of the cover gives
antialiasing without supersampling.

Frames and units: capsules in camera axes (x right, y down, z away from the camera), mm; pixels of
the crop. Colours are RGB, 0..255. Shape letters: S side of the crop, H and W height and width of a
box of pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selfpose.data.synthetic.bodies.anatomy import Capsule, Vector
from selfpose.data.synthetic.bodies.clothing import Fabric
from selfpose.data.synthetic.cameras import FOCAL_PX, FRAME_PX, Crop

__all__ = ["Canvas", "draw_body"]

ONE = np.float32(1)

SEAM_MM = 24.0
"""Twice the difference in depth, in mm, below which two surfaces blend, so that capsules meet like
muscles and without seams."""


class Canvas:
    """Holds the colour, cover and depth of each pixel while a picture is drawn."""

    def __init__(self, background_ss3: NDArray[np.float32]):
        """Begin with a background, (S, S, 3), RGB 0..255, which is drawn over in place."""
        size = background_ss3.shape[0]
        self.colour_ss3 = background_ss3
        self.cover_ss = np.zeros((size, size), dtype=np.float32)
        self.depth_ss = np.full((size, size), np.inf, dtype=np.float32)
        self.grid_s = np.arange(size, dtype=np.float32)


def draw_body(
    canvas: Canvas, capsules: list[Capsule], *, crop: Crop, light: Vector, ambient: float
) -> None:
    """Draw capsules into a canvas, nearer ones over farther ones.

    Args:
        canvas: the picture, which is changed in place.
        capsules: the capsules, in mm in camera axes.
        crop: the square of the frame that the canvas shows.
        light: unit direction towards the light, (3,), in camera axes.
        ambient: share of the light that comes from all directions, 0..1.
    """
    for capsule in sorted(capsules, key=lambda c: -float(c.start[2] + c.end[2])):
        _draw_capsule(canvas, capsule, crop=crop, light=light, ambient=ambient)


@dataclass(frozen=True)
class _Surface:
    """Describes the visible surface of one capsule in a box of pixels."""

    rows: slice
    """Rows of the box."""
    columns: slice
    """Columns of the box."""
    cover_hw: NDArray[np.float32]
    """Share of each pixel that the capsule covers, (H, W), 0..1."""
    depth_hw: NDArray[np.float32]
    """Depth of the surface, (H, W), in mm along z."""
    normal_x_hw: NDArray[np.float32]
    """Component x of the surface's unit normal, (H, W)."""
    normal_y_hw: NDArray[np.float32]
    """Component y of the surface's unit normal, (H, W)."""
    bulge_hw: NDArray[np.float32]
    """Minus component z of the unit normal, (H, W): how much the surface faces the camera."""


def _draw_capsule(
    canvas: Canvas, capsule: Capsule, *, crop: Crop, light: Vector, ambient: float
) -> None:
    surface = _trace(canvas, capsule, crop)
    if surface is None:
        return
    box = (surface.rows, surface.columns)
    nearer = (canvas.depth_ss[box] - surface.depth_hw) * np.float32(1 / SEAM_MM) + np.float32(0.5)
    shown = surface.cover_hw * np.clip(nearer, 0.0, 1.0)
    lambert = (
        surface.normal_x_hw * light[0]
        + surface.normal_y_hw * light[1]
        - surface.bulge_hw * light[2]
    )
    shade = np.maximum(lambert, 0.0) * np.float32(0.85 * (1 - ambient))
    shade += surface.bulge_hw * np.float32(0.3) + np.float32(ambient * 0.85)
    albedo = _albedo(canvas, capsule, surface=surface, crop=crop)
    colour = canvas.colour_ss3[box]
    colour += shown[..., None] * (albedo * shade[..., None] - colour)
    cover = canvas.cover_ss[box]
    cover += shown * (ONE - cover)
    depth = canvas.depth_ss[box]
    np.minimum(depth, surface.depth_hw, out=depth, where=surface.cover_hw > 0.5)


def _trace(canvas: Canvas, capsule: Capsule, crop: Crop) -> _Surface | None:
    """Return cover, depth and normals of a capsule; None if it is outside the picture."""
    size = len(canvas.grid_s)
    ax, ay, a_scale = _to_pixels(capsule.start, crop, size)
    bx, by, b_scale = _to_pixels(capsule.end, crop, size)
    ra, rb = capsule.radii_mm[0] * a_scale, capsule.radii_mm[1] * b_scale
    columns = _box(ax - ra, bx - rb, ax + ra, bx + rb, size=size)
    rows = _box(ay - ra, by - rb, ay + ra, by + rb, size=size)
    if columns.start >= columns.stop or rows.start >= rows.stop:
        return None
    x_w = canvas.grid_s[columns] - np.float32(ax)
    y_h1 = canvas.grid_s[rows, None] - np.float32(ay)
    dx, dy = bx - ax, by - ay
    length2 = dx * dx + dy * dy
    if length2 <= (ra - rb) ** 2:  # seen end-on: one end hides the other
        share_hw = np.full((len(y_h1), len(x_w)), float(rb > ra), dtype=np.float32)
    else:
        share_hw = x_w * np.float32(dx / length2) + y_h1 * np.float32(dy / length2)
        np.clip(share_hw, 0.0, 1.0, out=share_hw)
    radius = np.float32(ra) + share_hw * np.float32(rb - ra)
    normal_x = (x_w - share_hw * np.float32(dx)) / radius
    normal_y = (y_h1 - share_hw * np.float32(dy)) / radius
    out2 = normal_x * normal_x + normal_y * normal_y
    cover = np.clip((ONE - np.sqrt(out2)) * radius + np.float32(0.5), 0.0, 1.0)
    bulge = np.sqrt(np.maximum(ONE - out2, np.float32(0)))
    za, zb = float(capsule.start[2]), float(capsule.end[2])
    ra_mm, rb_mm = capsule.radii_mm
    radius_mm = np.float32(ra_mm) + share_hw * np.float32(rb_mm - ra_mm)
    depth = np.float32(za) + share_hw * np.float32(zb - za) - bulge * radius_mm
    return _Surface(rows, columns, cover, depth, normal_x, normal_y, bulge)


def _to_pixels(point: Vector, crop: Crop, size: int) -> tuple[float, float, float]:
    """Return a point's column and row in the crop, and the pixels per mm at its depth."""
    x, y, z = point.tolist()
    zoom = (size - 1) / crop.side_px
    scale = FOCAL_PX / z
    column = (x * scale + FRAME_PX / 2 - crop.centre_px[0]) * zoom + (size - 1) / 2
    row = (y * scale + FRAME_PX / 2 - crop.centre_px[1]) * zoom + (size - 1) / 2
    return column, row, scale * zoom


def _box(low_a: float, low_b: float, high_a: float, high_b: float, *, size: int) -> slice:
    low, high = min(low_a, low_b) - 1, max(high_a, high_b) + 2
    return slice(min(size, max(0, int(low))), max(0, min(size, int(high) + 1)))


def _albedo(
    canvas: Canvas, capsule: Capsule, *, surface: _Surface, crop: Crop
) -> NDArray[np.float32]:
    """Return the colour before lighting: (3,) if it is the same everywhere, else (H, W, 3)."""
    if capsule.face is not None:
        return _head_albedo(capsule, surface)
    fabrics = (capsule.inner, capsule.outer)
    if capsule.cut_mm in (math.inf, -math.inf) or capsule.inner == capsule.outer:
        fabrics = (capsule.outer if capsule.cut_mm == -math.inf else capsule.inner,) * 2
    if fabrics[0] == fabrics[1] and fabrics[0].pattern == "none":
        return np.asarray(fabrics[0].colour, dtype=np.float32)
    point_x, point_y = _surface_points(canvas, surface, crop)
    along, across = (
        (point_x - capsule.origin[0]) * axis[0]
        + (point_y - capsule.origin[1]) * axis[1]
        + (surface.depth_hw - capsule.origin[2]) * axis[2]
        for axis in (capsule.along, capsule.across)
    )
    inner = _weave(fabrics[0], along, across)
    if fabrics[0] == fabrics[1]:
        return inner
    beyond = (along > capsule.cut_mm)[..., None]
    return np.where(beyond, _weave(fabrics[1], along, across), inner)


def _surface_points(
    canvas: Canvas, surface: _Surface, crop: Crop
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return x and y of the surface under each pixel, (H, W) each, in mm in camera axes."""
    size = len(canvas.grid_s)
    per_pixel = np.float32(crop.side_px / (size - 1) / FOCAL_PX)
    middle = np.float32((size - 1) / 2)
    off_x, off_y = ((c - FRAME_PX / 2) / FOCAL_PX for c in crop.centre_px)
    x_w = (canvas.grid_s[surface.columns] - middle) * per_pixel + np.float32(off_x)
    y_h1 = (canvas.grid_s[surface.rows, None] - middle) * per_pixel + np.float32(off_y)
    return x_w * surface.depth_hw, y_h1 * surface.depth_hw


def _weave(
    fabric: Fabric, along: NDArray[np.float32], across: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return a fabric's colour at texture coordinates in mm: (3,) if plain, else (H, W, 3)."""
    first = np.asarray(fabric.colour, dtype=np.float32)
    if fabric.pattern == "none":
        return first
    u, v = along * (2 / fabric.period_mm), across * (2 / fabric.period_mm)
    if fabric.pattern == "hoops":
        other = np.floor(u) % 2 == 0
    elif fabric.pattern == "stripes":
        other = np.floor(v) % 2 == 0
    elif fabric.pattern == "checks":
        other = (np.floor(u) + np.floor(v)) % 2 == 0
    else:
        other = (u % 2 - 1) ** 2 + (v % 2 - 1) ** 2 < 0.35
    return np.where(other[..., None], np.asarray(fabric.second, dtype=np.float32), first)


def _head_albedo(capsule: Capsule, surface: _Surface) -> NDArray[np.float32]:
    """Return the colour of a head, (H, W, 3): a face with eyes in front, hair elsewhere."""
    facing, up, left = (
        surface.normal_x_hw * axis[0] + surface.normal_y_hw * axis[1] - surface.bulge_hw * axis[2]
        for axis in (capsule.face, capsule.along, capsule.across)
        if axis is not None
    )
    skin = np.asarray(capsule.outer.colour, dtype=np.float32)
    hair = np.asarray(capsule.inner.colour, dtype=np.float32)
    face = (facing > 0.1) & (up < 0.55)
    eyes = (facing > 0.5) & (np.abs(up - 0.12) < 0.14) & (np.abs(np.abs(left) - 0.36) < 0.15)
    return np.where(face[..., None], np.where(eyes[..., None], skin * np.float32(0.3), skin), hair)
