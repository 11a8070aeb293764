"""Finds drawn people as one finds people in photographs: by the empty background of each camera.

The background is the median of some pictures of the same camera, on which people stand in
different places, as `pictures.foreground` takes it from a camera's photographs. So these masks
have the faults of real ones: shadows, noise, clothes like the wall.

Shape letters: K people, F frames, J joints, S side of a crop in pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError
from selfpose.data.pictures.foreground import BACKDROP_PICTURES, find_foreground
from selfpose.data.seeding import generator
from selfpose.data.synthetic.cameras import CAMERAS, FRAME_PX, Crop
from selfpose.data.synthetic.rendering import Level, Scene, background_of, draw_frame
from selfpose.method.skeleton import LAYOUTS, Layout

__all__ = ["MASK_PX", "PeopleSample", "estimate_mask", "reduce_mask", "sample_people"]

MASK_PX = 128
"""Least side of the crops in which people are looked for, in pixels; smaller crops show too little
of them."""
_BACKDROP_PX = 300
"""Side of the backgrounds in pixels."""
_BACKDROP_FRAME_PX = 1400
"""Side of the backgrounds in pixels of the camera's frame, over whose edge crops reach."""
_FEWEST_PEOPLE = 5
"""Number of pictures below which their median still shows people."""

PeopleSample = tuple[int, bytes]
"""Number of people, and their joints, (K, J, 3), float32, in mm in world axes, as bytes: it can be
hashed."""


def sample_people(motions: Sequence[NDArray[np.float32]]) -> PeopleSample:
    """Return those whose pictures tell a camera's background, spread over all frames.

    Args:
        motions: joints of each motion, (F, J, 3), in mm in world axes.

    Raises:
        BadInputError: there are too few.
    """
    frames = sum(map(len, motions))
    if frames < _FEWEST_PEOPLE:
        raise BadInputError(
            f"--masks estimated: a split has {frames} frames, and the background of a camera "
            f"takes {_FEWEST_PEOPLE} or more; give more motions, or --masks exact"
        )
    rows = np.linspace(0, frames - 1, min(BACKDROP_PICTURES, frames)).astype(int)
    joints_kj3 = np.concatenate(motions)[rows].astype(np.float32)
    return len(joints_kj3), joints_kj3.tobytes()


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
        people: who is seen on the pictures that tell the background.

    Returns:
        The mask, uint8 (S, S), 0 or 255.
    """
    place = _Place(
        scene.level,
        scene.seed,
        scene.group,
        scene.camera,
        background_of(scene),
        layout.name,
        people,
        motion=scene.motion,
    )
    border_px = (_BACKDROP_FRAME_PX - FRAME_PX) / 2
    left_px, top_px = crop.centre_px
    moved = Crop((left_px + border_px, top_px + border_px), crop.side_px)
    return find_foreground(picture_ss3, _backdrop(place), moved, frame_width=_BACKDROP_FRAME_PX)


def reduce_mask(mask_ss: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return a mask of `size` pixels a side, 0 to 255: how much of each pixel is foreground."""
    return np.asarray(cv2.resize(mask_ss, (size, size), interpolation=cv2.INTER_AREA))


@dataclass(frozen=True)
class _Place:
    """Says what a camera sees when nobody of a store stands there."""

    level: Level
    seed: int
    group: str
    camera: int
    background: str
    layout: str
    people: PeopleSample
    motion: str = field(compare=False)
    """One of the motions that have this background; any of them gives the same pictures."""


@functools.lru_cache(maxsize=64)
def _backdrop(place: _Place) -> NDArray[np.uint8]:
    """Return the background of a place, (height, width, 3), BGR."""
    count, data = place.people
    joints_kj3 = np.frombuffer(data, dtype=np.float32).reshape(count, -1, 3)
    camera = CAMERAS[place.camera]
    seen = Crop((FRAME_PX / 2, FRAME_PX / 2), _BACKDROP_FRAME_PX)
    pictures = []
    for k, joints_j3 in enumerate(joints_kj3):
        who = f"passer-by {k}"
        scene = Scene(place.level, place.seed, place.group, who, place.motion, place.camera)
        key = ("backdrop", place.group, place.background, place.camera, k)
        picture, _ = draw_frame(
            camera.to_camera(joints_j3),
            LAYOUTS[place.layout],
            scene=scene,
            crop=seen,
            size=_BACKDROP_PX,
            rng=generator(place.seed, *key),
        )
        pictures.append(picture)
    return np.asarray(np.median(np.stack(pictures), axis=0), dtype=np.uint8)[..., ::-1]
