"""A room's picture against a tracer that follows one ray at a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from selfpose.data.seeding import generator
from selfpose.data.synthetic.cameras import CAMERAS, FOCAL_PX, FRAME_PX, Camera
from selfpose.data.synthetic.rooms import BORDER_PX, CLEAR_MM, SCALE, Room, build_room, picture_room


def trace(room: Room, camera: Camera, column: int, row: int) -> np.ndarray:
    """The colour that the ray of one pixel meets first, in a room without patterns."""
    u, v = (((i + 0.5) / SCALE - BORDER_PX - FRAME_PX / 2) / FOCAL_PX for i in (column, row))
    eye = camera.position_mm.astype(float)
    ray = camera.world_to_camera_33.T.astype(float) @ np.asarray([u, v, 1.0])
    walls = np.asarray([*room.half_size_mm, room.height_mm])
    low, high = np.asarray([*-walls[:2], 0.0]), walls
    far = [((high if ray[a] > 0 else low)[a] - eye[a]) / ray[a] for a in range(3)]
    axis = int(np.argmin(far))
    nearest = far[axis]
    colour = room.colours_63[2 * axis + (ray[axis] > 0)].astype(float)
    if axis < 2 and eye[2] + nearest * ray[2] < 90:
        colour *= 0.75  # the skirting
    forward = camera.world_to_camera_33[2]
    for box, of_box in zip(room.furniture_k6, room.furniture_colours_k3, strict=True):
        if ((box[:3] + box[3:]) / 2 - eye) @ forward < -eye @ forward + CLEAR_MM / 2:
            continue  # it would stand before the person
        ends = np.sort([(box[:3] - eye) / ray, (box[3:] - eye) / ray], axis=0)
        enters, leaves = ends[0].max(), ends[1].min()
        if 0 < enters < min(leaves, nearest):
            nearest = enters
            colour = of_box * (0.8, 0.95, 1.1)[int(ends[0].argmax())]
    return np.clip(colour, 0, 255)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.slow
def test_every_pixel_shows_the_first_surface_on_its_ray(number: int) -> None:
    room = dataclasses.replace(
        build_room(generator(number)), panel_mm=0.0, floor="tiles", floor_contrast=0.0
    )
    room = dataclasses.replace(room, noise=np.zeros_like(room.noise))
    rng = np.random.default_rng(number)
    compared = 0
    for camera in CAMERAS:
        picture = picture_room(room, camera).pictures[0].astype(float)
        for column, row in rng.integers(4, len(picture) - 4, (60, 2)):
            around = [
                trace(room, camera, column + dx, row + dy) for dx in (-4, 0, 4) for dy in (-4, 0, 4)
            ]
            if np.ptp(around, axis=0).max() == 0:  # the picture is a little blurred
                compared += 1
                assert np.abs(picture[row, column] - around[4]).max() <= 1.0
    assert compared > 150
