"""Draws one frame as a picture: look, room, body, shadow, and the blur and noise of a real camera.

Levels, from easy to hard:
    plain    one colour per part, left and right different, on black
    clothes  dressed people, left and right alike, on one plain colour
    rooms    the same in rooms: shadows, boxes behind and before the person, light, blur and noise
    occluders    the same with objects that hide parts of the person in nearly every frame

Looks and rooms belong to a subject's group (`train`, which the prior shares, `val` or `test`):
those of one group are never seen in another.
Shape letters: J joints, S side of the picture in pixels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from selfpose.data.seeding import generator
from selfpose.data.synthetic import rooms
from selfpose.data.synthetic.bodies import clothing
from selfpose.data.synthetic.bodies.anatomy import Capsule, Vector, build_capsules
from selfpose.data.synthetic.bodies.clothing import Look
from selfpose.data.synthetic.cameras import CAMERAS, FOCAL_PX, Crop
from selfpose.data.synthetic.capsules import Canvas, draw_body
from selfpose.data.synthetic.hands.anatomy import (
    HandLook,
    build_forearm,
    build_hand,
    clothes_hand,
    plain_hand,
)
from selfpose.data.synthetic.occluders import draw_occluders
from selfpose.method.skeleton import HAND_21, Layout

__all__ = ["ROOMS", "Level", "Scene", "background_of", "draw_frame", "look_of"]

Level = Literal["plain", "clothes", "rooms", "occluders"]
"""Name of a level; the module's docstring describes each."""

ROOMS = {"train": 6, "val": 2, "test": 2}
"""Number of rooms of each group, all of them different."""

OCCLUDER_SHARE = 0.25
"""Share of frames on level `rooms` in which a box stands before the person."""
SHADOW = 0.45
"""Share of the light that a cast shadow takes away."""


@dataclass(frozen=True)
class Scene:
    """Says who is seen in one frame, and where."""

    level: Level
    """How hard the picture is."""
    seed: int
    """Seed of the import; looks and rooms follow from it."""
    group: str
    """Group of the subject: `train`, `val` or `test`."""
    subject: str
    """Name of the subject, which decides the look."""
    motion: str
    """Name of the motion, which decides the room."""
    camera: int
    """Index of the camera."""


def draw_frame(
    joints_j3: NDArray[np.float32],
    layout: Layout,
    *,
    scene: Scene,
    crop: Crop,
    size: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one frame.

    Args:
        joints_j3: joints, (J, 3), in mm in camera axes.
        layout: layout of the joints.
        scene: who is seen, and where.
        crop: the square of the camera's frame that is drawn.
        size: side S of the picture in pixels.
        rng: generator of occluders, light, blur and noise.

    Returns:
        The picture, uint8 (S, S, 3), RGB; and the share of each pixel that the person covers,
        uint8 (S, S), from 0 (nothing) to 255 (all).
    """
    if scene.level in ("plain", "clothes"):
        canvas = Canvas(_plain_background(scene, size))
        figure = _figure(joints_j3, layout, scene)
        _draw_figure(canvas, figure, crop=crop, light=_HEAD_LIGHT, ambient=0.45)
        return _to_bytes(canvas.colour_ss3), _to_bytes(canvas.cover_ss * 255)
    room = _room(scene.seed, scene.group, _room_number(scene))
    view = _view(scene.seed, scene.group, _room_number(scene), scene.camera)
    background = rooms.cut_background(view, crop, size).astype(np.float32)
    camera = CAMERAS[scene.camera]
    background *= _shadow(joints_j3, layout, room=room, scene=scene, crop=crop, size=size)
    canvas = Canvas(background)
    light = camera.world_to_camera_33 @ room.light_3
    figure = _figure(joints_j3, layout, scene)
    _draw_figure(canvas, figure, crop=crop, light=light, ambient=0.5)
    if scene.level == "occluders":
        draw_occluders(canvas, rng)
    elif rng.random() < OCCLUDER_SHARE:
        _draw_occluder(canvas, rng)
    return _photograph(canvas.colour_ss3, rng), _to_bytes(canvas.cover_ss * 255)


def background_of(scene: Scene) -> str:
    """Return the name of what is behind the person: one room for all its scenes, else a motion."""
    if scene.level in ("plain", "clothes"):
        return scene.motion
    return f"room {_room_number(scene)}"


def look_of(scene: Scene) -> Look:
    """Return the look of a scene's subject, which is the same in all its frames and motions."""
    return _look(scene.level, scene.seed, scene.group, scene.subject)


@dataclass(frozen=True)
class _Figure:
    """Holds the capsules that are drawn of a person or a hand."""

    capsules: list[Capsule]
    """Capsules of the person or hand."""
    beside: list[Capsule]
    """Capsules that are drawn but are no foreground in the mask: the forearm of a hand."""


def _figure(joints_j3: NDArray[np.float32], layout: Layout, scene: Scene) -> _Figure:
    if layout.name != HAND_21.name:
        return _Figure(build_capsules(joints_j3, layout, look_of(scene)), [])
    look = _hand_look(scene.level, scene.seed, scene.group, scene.subject)
    return _Figure(build_hand(joints_j3, look), build_forearm(joints_j3, look))


def _draw_figure(
    canvas: Canvas, figure: _Figure, *, crop: Crop, light: Vector, ambient: float
) -> None:
    draw_body(canvas, figure.beside, crop=crop, light=light, ambient=ambient)
    canvas.cover_ss[:] = 0
    draw_body(canvas, figure.capsules, crop=crop, light=light, ambient=ambient)


_HEAD_LIGHT = np.asarray([-0.40, -0.60, -0.69], dtype=np.float32)


@functools.lru_cache(maxsize=256)
def _look(level: Level, seed: int, group: str, subject: str) -> Look:
    rng = generator(seed, "look", group, subject)
    return clothing.plain_look(rng) if level == "plain" else clothing.clothes_look(rng)


@functools.lru_cache(maxsize=256)
def _hand_look(level: Level, seed: int, group: str, subject: str) -> HandLook:
    rng = generator(seed, "hand look", group, subject)
    return plain_hand(rng) if level == "plain" else clothes_hand(rng)


@functools.lru_cache(maxsize=16)
def _room(seed: int, group: str, number: int) -> rooms.Room:
    return rooms.build_room(generator(seed, "room", group, number))


@functools.lru_cache(maxsize=48)
def _view(seed: int, group: str, number: int, camera: int) -> rooms.View:
    return rooms.picture_room(_room(seed, group, number), CAMERAS[camera])


def _room_number(scene: Scene) -> int:
    rng = generator(scene.seed, "room of", scene.motion)
    return int(rng.integers(ROOMS[scene.group]))


def _plain_background(scene: Scene, size: int) -> NDArray[np.float32]:
    if scene.level == "plain":
        return np.zeros((size, size, 3), dtype=np.float32)
    rng = generator(scene.seed, "backdrop", scene.group, scene.motion)
    colour_3 = rng.uniform(50, 200) + rng.uniform(-20, 20, 3)
    return np.broadcast_to(colour_3.astype(np.float32), (size, size, 3)).copy()


def _shadow(
    joints_j3: NDArray[np.float32],
    layout: Layout,
    *,
    room: rooms.Room,
    scene: Scene,
    crop: Crop,
    size: int,
) -> NDArray[np.float32]:
    """Return the share of the light that the body's shadow on the floor leaves, (S, S, 1)."""
    camera = CAMERAS[scene.camera]
    world_j3 = joints_j3 @ camera.world_to_camera_33 + camera.position_mm
    floor_j3 = world_j3 - room.light_3 * (world_j3[:, 2:] / room.light_3[2])
    pixels_j2 = (crop.from_frame(camera.project(camera.to_camera(floor_j3))) + 1) * (size - 1) / 2
    per_mm = size / crop.side_px * FOCAL_PX / float(joints_j3[:, 2].mean())
    # OpenCV takes whole numbers with 4 fractional bits (its argument `shift`), so 1 px is 16. The
    # limits keep points far outside the picture from overflowing its integers.
    ends = np.clip(pixels_j2 * 16, -30000, 30000).astype(np.int32).tolist()
    dark = np.zeros((size, size), dtype=np.uint8)
    for child, parent in layout.limbs:
        trunk = layout.joints[child] in ("spine", "thorax")
        width = max(1, round((190 if trunk else 110) * per_mm))
        cv2.line(dark, ends[child], ends[parent], 255, width, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(dark, (0, 0), max(0.5, 30 * per_mm))
    return 1 - soft.astype(np.float32)[..., None] * np.float32(SHADOW / 255)


def _draw_occluder(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a box over a border of the picture and take the part that it hides out of the mask."""
    size = len(canvas.grid_s)
    width, height = (rng.uniform(0.12, 0.35, 2) * size).astype(int)
    left = int(rng.uniform(-0.3 * width, size - 0.7 * width))
    top = int(rng.choice([-0.3 * height, size - rng.uniform(0.5, 1.0) * height]))
    rows, columns = slice(max(0, top), top + height), slice(max(0, left), left + width)
    colour_3 = rng.uniform(30, 210) + rng.uniform(-30, 30, 3)
    canvas.colour_ss3[rows, columns] = colour_3
    canvas.colour_ss3[rows, columns][:, : max(1, width // 5)] *= np.float32(0.75)
    canvas.cover_ss[rows, columns] = 0


def _photograph(colour_ss3: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a picture (S, S, 3) with the blur, colour gains, gamma and noise of a camera."""
    size = colour_ss3.shape[0]
    sigma = rng.uniform(0.35, 0.9) * size / 128
    blurred = cv2.GaussianBlur(colour_ss3, (0, 0), max(sigma, 0.2))
    picture = _to_bytes(np.asarray(blurred, dtype=np.float32))
    gamma, gain_3 = rng.uniform(0.75, 1.25), rng.uniform(0.85, 1.15) * rng.uniform(0.92, 1.08, 3)
    ramp = (np.arange(256) / 255) ** gamma * 255
    table = np.clip(ramp[:, None] * gain_3, 0, 255).astype(np.uint8).reshape(1, 256, 3)
    developed = cv2.LUT(picture, table).astype(np.float32)
    noise = rng.standard_normal(colour_ss3.shape, dtype=np.float32)
    return _to_bytes(developed + noise * np.float32(rng.uniform(1, 6)))


def _to_bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return (np.clip(values, 0, 255) + np.float32(0.5)).astype(np.uint8)
