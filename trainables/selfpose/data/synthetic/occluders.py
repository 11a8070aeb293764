"""Draws objects in front of the person, for the level `occluders`.

The parts of the person that an object hides are taken out of the mask.
Shape letters: S side of the crop in pixels; K corners.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from selfpose.data.synthetic.capsules import Canvas

__all__ = ["LEAST_SEEN", "draw_occluders"]

LEAST_SEEN = 0.5
"""Share of the person that stays visible behind all objects together."""
_KINDS = ("box", "post", "bars", "ball")


def draw_occluders(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw one to three objects before the person: boxes, posts, bars, balls.

    Each covers some point of the person. An object that would hide too much is left out.

    Args:
        canvas: the picture with the person, whose colours and cover are changed in place.
        rng: generator of the objects.
    """
    whole = float(canvas.cover_ss.sum())
    for _ in range(int(rng.integers(1, 4))):
        seen = np.argwhere(canvas.cover_ss > 0.5)
        if not len(seen):
            return
        row, column = seen[rng.integers(len(seen))]
        place_2 = np.asarray((column, row), dtype=np.float64)
        faces = _draw_object(place_2, size=len(canvas.grid_s), rng=rng)
        hidden_ss = np.max([cover_ss for cover_ss, _ in faces], axis=0)
        left_ss = canvas.cover_ss * (1 - hidden_ss)
        if left_ss.sum() < LEAST_SEEN * whole:
            continue
        canvas.cover_ss[:] = left_ss
        for cover_ss, colour_3 in faces:
            canvas.colour_ss3 += cover_ss[..., None] * (colour_3 - canvas.colour_ss3)


def _draw_object(
    place_2: NDArray[np.float64], *, size: int, rng: np.random.Generator
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Draw one object over a place in the picture.

    Args:
        place_2: the place (column, row), (2,), in pixels.
        size: side S of the picture in pixels.
        rng: generator of the object.

    Returns:
        For each face of the object the share of each pixel that it covers, (S, S), 0..1, and its
        colour, (3,), RGB 0..255.
    """
    kind = _KINDS[rng.integers(len(_KINDS))]
    colour_3 = (rng.uniform(30, 210) + rng.uniform(-30, 30, 3)).astype(np.float32)
    shade_3 = colour_3 * np.float32(rng.uniform(0.55, 0.8))
    if kind == "ball":
        radius = rng.uniform(0.05, 0.13) * size
        light_2 = place_2 + rng.uniform(-0.3, 0.3, 2) * radius
        outer, inner = _disc(place_2, radius, size), _disc(light_2, radius * 0.6, size)
        return [(outer, shade_3), (inner, colour_3)]
    if kind == "box":
        half_2, turn = rng.uniform(0.05, 0.15, 2) * size, rng.uniform(-0.5, 0.5)
        side_2 = np.asarray((rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 0.8) * half_2[0], 0.0))
        behind = _bar(place_2 + side_2, half_2 * (1.0, 0.9), turn, size=size)
        return [(behind, shade_3), (_bar(place_2, half_2, turn, size=size), colour_3)]
    turn = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.12)
    across_2 = np.asarray((np.cos(turn), np.sin(turn)))
    count = 1 if kind == "post" else int(rng.integers(3, 6))
    thick = rng.uniform(0.02, 0.06) * size / count**0.5
    bars = [
        _bar(place_2 + i * 5 * thick * across_2, np.asarray((thick, 2 * size)), turn, size=size)
        for i in range(count)
    ]
    return [(np.max(bars, axis=0), colour_3)]


def _bar(
    middle_2: NDArray[np.float64], half_2: NDArray[np.float64], turn: float, *, size: int
) -> NDArray[np.float32]:
    """Return the share of each pixel that a rectangle covers, (S, S), 0..1.

    `middle_2` is its middle and `half_2` half its sides in pixels; `turn` is in radians.
    """
    cos, sin = np.cos(turn), np.sin(turn)
    corners_k2 = np.asarray([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half_2
    turned_k2 = corners_k2 @ np.asarray([(cos, sin), (-sin, cos)]) + middle_2
    cover_ss = np.zeros((size, size), dtype=np.uint8)
    cv2.fillConvexPoly(cover_ss, np.round(turned_k2 * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    return cover_ss.astype(np.float32) * np.float32(1 / 255)


def _disc(middle_2: NDArray[np.float64], radius: float, size: int) -> NDArray[np.float32]:
    """Return the share of each pixel that a disc covers, (S, S), 0..1; all lengths in pixels."""
    cover_ss = np.zeros((size, size), dtype=np.uint8)
    place = [round(float(value) * 16) for value in middle_2]
    cv2.circle(cover_ss, place, round(radius * 16), 255, -1, cv2.LINE_AA, 4)
    return cover_ss.astype(np.float32) * np.float32(1 / 255)
