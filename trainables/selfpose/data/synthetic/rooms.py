"""Draws rooms to stand in: walls, a floor and furniture, seen through the four cameras.

A room is drawn once per camera by following the ray of every pixel to the first surface; frames
then cut their part out of that picture. Furniture stands along the walls, never between the
camera and the person, who is drawn over the picture.

Frames and units: world axes (z up, floor z = 0), mm; colours RGB, 0..255.
Shape letters: P pixels of the picture, K boxes of furniture, S side of a crop in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from selfpose.data.synthetic.cameras import FOCAL_PX, FRAME_PX, Camera, Crop

__all__ = ["Room", "View", "build_room", "cut_background", "picture_room"]

BORDER_PX = 300
"""Width of the border by which the picture is larger than the frame, in pixels of the frame, since
crops can reach over the frame's edge."""
SCALE = 0.4
"""Pixels of the picture per pixel of the frame."""
CLEAR_MM = 1900.0
"""Smallest distance of furniture from the room's middle, in mm."""


@dataclass(frozen=True)
class Room:
    """Describes the surfaces and the light of one room."""

    half_size_mm: tuple[float, float]
    """Half of the room's size in x and in y, in mm."""
    height_mm: float
    """Height of the ceiling, in mm."""
    colours_63: NDArray[np.float32]
    """Colours of the walls at -x, +x, -y and +y, of the floor and of the ceiling, (6, 3)."""
    floor: Literal["tiles", "planks", "carpet"]
    """Pattern of the floor."""
    floor_period_mm: float
    """Size of the floor's pattern, in mm."""
    floor_contrast: float
    """Share of the brightness that the dark parts of the floor's pattern lack, 0..1."""
    panel_mm: float
    """Width of the walls' panels, in mm; 0 for smooth walls."""
    furniture_k6: NDArray[np.float32]
    """Low and high corner of each box, (K, 6), in mm."""
    furniture_colours_k3: NDArray[np.float32]
    """Colour of each box, (K, 3)."""
    light_3: NDArray[np.float32]
    """Unit direction towards the light, (3,)."""
    noise: NDArray[np.float32]
    """A tile of smooth noise with mean 0 and deviation 1, which repeats over all surfaces."""


@dataclass(frozen=True)
class View:
    """Holds pictures of a room from one camera."""

    pictures: tuple[NDArray[np.uint8], ...]
    """The same picture at three resolutions, each with half the side of the one before."""


def build_room(rng: np.random.Generator) -> Room:
    """Draw the size, surfaces, furniture and light of a room at random."""
    half_x, half_y = rng.uniform(3000, 4600), rng.uniform(5600, 6400)
    walls = rng.uniform(110, 215) + rng.uniform(-14, 14, (1, 3)) + rng.uniform(-9, 9, (4, 1))
    floor = rng.uniform(80, 190) + rng.uniform(-18, 18, 3)
    boxes = _furnish(rng, half_x, half_y)
    azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(0.85, 1.3)
    flat = np.cos(elevation)
    grey = rng.normal(0, 1, (64, 64)).astype(np.float32)
    noise = cv2.GaussianBlur(grey, (0, 0), 0.8)
    return Room(
        half_size_mm=(half_x, half_y),
        height_mm=rng.uniform(2700, 3600),
        colours_63=np.concatenate([walls, [floor], [[235.0] * 3]]).astype(np.float32),
        floor=("tiles", "planks", "carpet")[rng.integers(3)],
        floor_period_mm=rng.uniform(350, 900),
        floor_contrast=rng.uniform(0.05, 0.22),
        panel_mm=float(rng.choice([0.0, rng.uniform(500, 1500)])),
        furniture_k6=boxes,
        furniture_colours_k3=rng.uniform(30, 215, (len(boxes), 1)).astype(np.float32)
        + rng.uniform(-28, 28, (len(boxes), 3)).astype(np.float32),
        light_3=np.asarray(
            [flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], dtype=np.float32
        ),
        noise=(noise / noise.std()).astype(np.float32),
    )


def picture_room(room: Room, camera: Camera) -> View:
    """Draw the picture of a room that one camera sees."""
    side = round((FRAME_PX + 2 * BORDER_PX) * SCALE)
    ticks = (
        (np.arange(side, dtype=np.float32) + 0.5) / SCALE - BORDER_PX - FRAME_PX / 2
    ) / FOCAL_PX
    rays = np.stack(np.broadcast_arrays(ticks[None], ticks[:, None], np.float32(1)), axis=-1)
    # The product is made row by row; one product over all pixels takes twenty times as long.
    rays_p3 = (rays @ camera.world_to_camera_33).reshape(-1, 3)
    distance_p, surface_p = _hit_shell(room, camera.position_mm, rays_p3)
    colour_p3 = _paint_shell(room, camera.position_mm + rays_p3 * distance_p[:, None], surface_p)
    _draw_furniture(room, camera, rays_p3, distance_p=distance_p, colour_p3=colour_p3)
    picture = np.clip(colour_p3, 0, 255).astype(np.uint8).reshape(side, side, 3)
    pictures = [cv2.GaussianBlur(picture, (0, 0), 0.8)]
    for _ in range(2):
        pictures.append(cv2.pyrDown(pictures[-1]))
    return View(tuple(np.asarray(level, dtype=np.uint8) for level in pictures))


def cut_background(view: View, crop: Crop, size: int) -> NDArray[np.uint8]:
    """Return the part of a room's picture that a crop shows.

    Args:
        view: pictures of the room from the crop's camera.
        crop: the square, in frame pixels.
        size: side S of the result in pixels.

    Returns:
        The picture, uint8 (S, S, 3), RGB.
    """
    frame_per_pixel = crop.side_px / (size - 1)
    level = int(np.clip(np.log2(max(frame_per_pixel * SCALE, 1.0)), 0, len(view.pictures) - 1))
    picture = view.pictures[level]
    scale = SCALE / 2**level
    low_2 = np.asarray(crop.centre_px) - crop.side_px / 2
    step = frame_per_pixel * scale
    shift_2 = (low_2 + BORDER_PX) * scale - 0.5
    to_picture = np.asarray([[step, 0, shift_2[0]], [0, step, shift_2[1]]], dtype=np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cut = cv2.warpAffine(
        picture, to_picture, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(cut, dtype=np.uint8)


def _furnish(rng: np.random.Generator, half_x: float, half_y: float) -> NDArray[np.float32]:
    """Draw 5 to 11 boxes along the walls; return the low and high corner of each, (K, 6), in mm."""
    boxes = []
    for _ in range(int(rng.integers(5, 12))):
        width, depth, height = rng.uniform(350, 1500), rng.uniform(300, 700), rng.uniform(350, 2200)
        lift = rng.uniform(700, 1500) if rng.random() < 0.3 else 0.0  # some hang on the wall
        end = rng.choice([-1.0, 1.0])
        if rng.random() < 0.7:  # along a short wall, which the cameras look at
            x = rng.uniform(-half_x + width, half_x - width)
            middle, half = (x, end * (half_y - depth / 2)), (width / 2, depth / 2)
        else:
            y = end * rng.uniform(CLEAR_MM, half_y - width)
            wall = rng.choice([-1.0, 1.0])
            middle, half = (wall * (half_x - depth / 2), y), (depth / 2, width / 2)
        low = (middle[0] - half[0], middle[1] - half[1], lift)
        high = (middle[0] + half[0], middle[1] + half[1], lift + height)
        boxes.append((*low, *high))
    return np.asarray(boxes, dtype=np.float32)


def _hit_shell(
    room: Room, origin_3: NDArray[np.float32], rays_p3: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return how far each ray goes to the room's shell, (P,), and which surface it meets, (P,).

    Distances are in lengths of the ray. Surfaces have the order of `Room.colours_63`.
    """
    low = np.asarray([-room.half_size_mm[0], -room.half_size_mm[1], 0], dtype=np.float32)
    high = np.asarray([*room.half_size_mm, room.height_mm], dtype=np.float32)
    safe_3p = _safe(rays_p3)
    far_3p = np.where(safe_3p > 0, (high - origin_3)[:, None], (low - origin_3)[:, None])
    walls_3p = far_3p / safe_3p
    axis_p = walls_3p.argmin(axis=0)
    positive_p = np.take_along_axis(safe_3p, axis_p[None], axis=0)[0] > 0
    return walls_3p.min(axis=0), 2 * axis_p + positive_p  # 0..3 walls, 4 floor, 5 ceiling


def _safe(rays_p3: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rays (3, P) without zeros, to divide by; numpy is fastest along the longer axis."""
    return np.where(np.abs(rays_p3.T) < 1e-6, np.float32(1e-6), np.ascontiguousarray(rays_p3.T))


def _paint_shell(
    room: Room, points_p3: NDArray[np.float32], surface_p: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the colours (P, 3) of points on the walls, floor and ceiling."""
    x, y, z = points_p3.T
    on_floor = surface_p == 4
    u = np.where(surface_p < 2, y, x)
    v = np.where(surface_p < 4, z, y)
    grain = _noise_at(room, u, v, period_mm=900) * 4 + _noise_at(room, u, v, period_mm=6000) * 7
    shade = _floor_shade(room, x, y)
    if room.panel_mm > 0:
        seam = np.abs(u / room.panel_mm - np.round(u / room.panel_mm)) * room.panel_mm < 18
        wall = np.where(seam, 0.8, 1.0)
    else:
        wall = np.ones_like(u)
    skirting = np.where(z < 90, 0.75, 1.0)
    factor = np.where(on_floor, shade, wall * skirting)
    colour_p3: NDArray[np.float32] = room.colours_63[surface_p] * factor[:, None] + grain[:, None]
    return colour_p3.astype(np.float32)


def _floor_shade(room: Room, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the factor of the floor's pattern on the brightness, at points x and y in mm."""
    a, b = x / room.floor_period_mm, y / room.floor_period_mm
    if room.floor == "tiles":
        step = (np.floor(a) + np.floor(b)) % 2
    elif room.floor == "planks":
        step = (np.floor(a * 3) * 0.37 + np.floor(b / 3 + np.floor(a * 3) * 0.41) * 0.61) % 1.0
    else:
        step = 0.5 + 0.4 * _noise_at(room, x, y, period_mm=2500)
    return (1 - room.floor_contrast * step).astype(np.float32)


def _noise_at(
    room: Room, u: NDArray[np.float32], v: NDArray[np.float32], *, period_mm: float
) -> NDArray[np.float32]:
    side = len(room.noise)
    column, row = (np.float32(side / period_mm) * axis % side for axis in (u, v))
    shape = (-1, 1024)
    pad = -len(u) % 1024
    maps = [np.pad(axis.astype(np.float32), (0, pad)).reshape(shape) for axis in (column, row)]
    found = cv2.remap(room.noise, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(found, dtype=np.float32).reshape(-1)[: len(u)]


def _draw_furniture(
    room: Room,
    camera: Camera,
    rays_p3: NDArray[np.float32],
    *,
    distance_p: NDArray[np.float32],
    colour_p3: NDArray[np.float32],
) -> None:
    """Paint the boxes that stand behind the room's middle as this camera sees it.

    `distance_p` and `colour_p3` are changed in place where a box is nearer than the shell.
    """
    origin = camera.position_mm
    middle_depth = float(-(origin @ camera.world_to_camera_33[2]))
    safe_3p = _safe(rays_p3)
    for box, colour in zip(room.furniture_k6, room.furniture_colours_k3, strict=True):
        centre = (box[:3] + box[3:]) / 2
        if (centre - origin) @ camera.world_to_camera_33[2] < middle_depth + CLEAR_MM / 2:
            continue
        first_3p = (box[:3] - origin)[:, None] / safe_3p
        second_3p = (box[3:] - origin)[:, None] / safe_3p
        near_3p = np.minimum(first_3p, second_3p)
        near_p = near_3p.max(axis=0)
        hit = (near_p < np.maximum(first_3p, second_3p).min(axis=0)) & (near_p < distance_p)
        hit &= near_p > 0
        side_p = near_3p[:, hit].argmax(axis=0)
        colour_p3[hit] = colour * np.asarray([0.8, 0.95, 1.1], dtype=np.float32)[side_p, None]
        distance_p[hit] = near_p[hit]
