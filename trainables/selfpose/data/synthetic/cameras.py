"""Four pinhole cameras around a room, and the square crop around a person.

Frames and units:
    world       right-handed, z up, millimetres; the floor is z = 0, the room's middle x = y = 0
    camera      x right, y down, z away from the camera, millimetres
    frame       u right, v down, pixels of the 1000 x 1000 frame
    crop        x right, y down, [-1, 1]: pixel i of a crop of S pixels lies at -1 + 2 i / (S - 1)
Shape letters: N poses or frames, J joints.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CAMERAS", "FOCAL_PX", "FRAME_PX", "Camera", "Crop", "draw_crop", "look_at"]

FOCAL_PX = 1146.0
FRAME_PX = 1000

CROP_MARGIN = (1.25, 1.45)
"""Side of the crop over the larger side of the joints' box: drawn between these."""
CROP_JITTER = 0.04
"""The crop's centre is moved by up to this share of its side, each way."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: where it stands and how it is turned."""

    position_mm: NDArray[np.float32]
    """(3,), world."""
    world_to_camera_33: NDArray[np.float32]
    """Rows are the camera's axes in the world: right, down, forward."""

    def to_camera(self, points_n3: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return world points (..., 3) in mm in this camera's axes."""
        camera_n3: NDArray[np.float32] = np.matmul(
            points_n3 - self.position_mm, self.world_to_camera_33.T
        )
        return camera_n3

    def project(self, points_n3: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the frame pixels (..., 2) of points (..., 3) in camera axes, z > 0."""
        scale_n1 = np.float32(FOCAL_PX) / points_n3[..., 2:]
        return points_n3[..., :2] * scale_n1 + np.float32(FRAME_PX / 2)


@dataclass(frozen=True)
class Crop:
    """A square cut out of the frame, in frame pixels."""

    centre_px: tuple[float, float]
    side_px: float

    def from_frame(self, points_n2: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return frame pixels (..., 2) in crop coordinates."""
        centre = np.asarray(self.centre_px, dtype=np.float32)
        return (points_n2 - centre) * np.float32(2.0 / self.side_px)


def look_at(
    position_mm: tuple[float, float, float], target_mm: tuple[float, float, float]
) -> Camera:
    """Return the upright camera at a place that looks at a point; both (3,), world, mm."""
    position = np.asarray(position_mm, dtype=np.float64)
    forward = np.asarray(target_mm, dtype=np.float64) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(forward, right), forward])
    return Camera(position.astype(np.float32), axes.astype(np.float32))


def draw_crop(joints_j2: NDArray[np.float32], rng: np.random.Generator) -> Crop:
    """Draw the crop around a person.

    Args:
        joints_j2: joints, (J, 2), frame pixels.
        rng: where the margin and the jitter come from.
    """
    low, high = joints_j2.min(axis=0), joints_j2.max(axis=0)
    margin = rng.uniform(*CROP_MARGIN)
    jitter_2 = rng.uniform(-CROP_JITTER, CROP_JITTER, 2)
    side = max(float((high - low).max()), 1.0) * margin
    centre = (low + high) / 2 + jitter_2 * side
    return Crop((float(centre[0]), float(centre[1])), side)


# The usual four places of a motion-capture hall, rounded, at the corners of a long room.
CAMERAS: tuple[Camera, ...] = tuple(
    look_at(place, (0.0, 0.0, 900.0))
    for place in (
        (1900.0, 4950.0, 1580.0),
        (1900.0, -5100.0, 1600.0),
        (-1700.0, 5180.0, 1500.0),
        (-1680.0, -3860.0, 1550.0),
    )
)
