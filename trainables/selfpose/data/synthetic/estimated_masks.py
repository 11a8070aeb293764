"""Finds drawn people as one finds people in photographs: by the empty background of each camera.

The background is the median of some whole frames of the same camera, on which people stand in
different places, as `pictures.foreground` takes it from a camera's pictures. So these masks have
the faults of real ones: shadows, light that changes, clothes like the wall.

Shape letters: K frames, J joints, S side of a crop in pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from selfpose.data.pictures.foreground import BACKDROP_PICTURES, find_foreground
from selfpose.data.seeding import generator
from selfpose.data.synthetic.cameras import CAMERAS, FRAME_PX, Crop
from selfpose.data.synthetic.rendering import Scene, background_of, draw_frame
from selfpose.method.skeleton import LAYOUTS, Layout

__all__ = ["MASK_PX", "PeopleSample", "estimate_mask", "reduce_mask", "sample_people"]

MASK_PX = 128
"""Least side of the crops in which people are looked for, in pixels; smaller crops show too little
of them."""
_BACKDROP_PX = 250
"""Side of the backgrounds in pixels."""

PeopleSample = tuple[int, bytes]
"""Number of people, and their joints, (K, J, 3), float32, in mm in world axes, as bytes: it can be
hashed."""


def sample_people(motions: Sequence[NDArray[np.float32]]) -> PeopleSample:
    """Return those whose pictures tell a camera's background: people of different motions.

    Args:
        motions: joints of each motion, (F, J, 3), in mm in world axes.
    """
    count = min(BACKDROP_PICTURES, len(motions))
    chosen = np.linspace(0, len(motions) - 1, count).astype(int)
    joints_kj3 = np.stack([motions[i][len(motions[i]) // 2] for i in chosen])
    return count, joints_kj3.astype(np.float32).tobytes()


def estimate_mask(
    picture_ss3: NDArray[np.uint8],
    crop: Crop,
    *,
    scene: Scene,
    layout: Layout,
    people: PeopleSample,
) -> NDArray[np.uint8]:
    """Return where a picture differs from the empty background of its camera.

    Args:
        picture_ss3: the crop, uint8 (S, S, 3), RGB.
        crop: the square of the frame that it shows.
        scene: who is seen, and where.
        layout: layout of the joints.
        people: who is seen on the frames that tell the background.

    Returns:
        The mask, uint8 (S, S), 0 or 255.
    """
    place = _Place(background_of(scene), scene.camera, scene.group, layout.name, people, scene)
    return find_foreground(picture_ss3, _backdrop(place), crop, frame_width=FRAME_PX)


def reduce_mask(mask_ss: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return a mask of `size` pixels a side, 0 to 255: how much of each pixel is foreground."""
    return np.asarray(cv2.resize(mask_ss, (size, size), interpolation=cv2.INTER_AREA))


@dataclass(frozen=True)
class _Place:
    """Says what a camera sees; equal places have the same background."""

    background: str
    camera: int
    group: str
    layout: str
    people: PeopleSample
    scene: Scene = field(compare=False)
    """One of the scenes there."""


@functools.lru_cache(maxsize=64)
def _backdrop(place: _Place) -> NDArray[np.uint8]:
    """Return the background of a place, (height, width, 3), BGR."""
    count, data = place.people
    joints_kj3 = np.frombuffer(data, dtype=np.float32).reshape(count, -1, 3)
    frame = Crop((FRAME_PX / 2, FRAME_PX / 2), FRAME_PX)
    key = ("backdrop of", place.group, place.background, place.camera)
    pictures = [
        draw_frame(
            CAMERAS[place.camera].to_camera(joints_j3),
            LAYOUTS[place.layout],
            scene=place.scene,
            crop=frame,
            size=_BACKDROP_PX,
            rng=generator(place.scene.seed, *key, k),
        )[0]
        for k, joints_j3 in enumerate(joints_kj3)
    ]
    return np.asarray(np.median(np.stack(pictures), axis=0), dtype=np.uint8)[..., ::-1]
