"""Defines the four pinhole cameras around a room, and draws the square crop around a person.

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
"""Focal length of every camera in pixels of the frame."""
FRAME_PX = 1000
"""Side of the square frame in pixels."""

CROP_MARGIN = (1.25, 1.45)
"""Lowest and highest ratio of the crop's side to the larger side of the joints' box."""
CROP_JITTER = 0.04
"""Largest shift of the crop's centre in each direction, as a share of the crop's side."""


@dataclass(frozen=True)
class Camera:
    """Holds the place and rotation of a pinhole camera."""

    position_mm: NDArray[np.float32]
    """Place of the camera, (3,), in mm in world axes."""
    world_to_camera_33: NDArray[np.float32]
    """Rotation from world axes to camera axes, (3, 3), for column vectors. Its rows are the right,
    down and forward directions of the camera in the world."""

    def to_camera(self, points_n3: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return points in camera axes.

        Args:
            points_n3: points, (..., 3), in mm in world axes.

        Returns:
            Points, (..., 3), in mm in camera axes.
        """
        camera_n3: NDArray[np.float32] = np.matmul(
            points_n3 - self.position_mm, self.world_to_camera_33.T
        )
        return camera_n3

    def project(self, points_n3: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return where the camera sees points.

        Args:
            points_n3: points in front of the camera (z > 0), (..., 3), in any unit in camera axes.

        Returns:
            Places in the frame, (..., 2), in pixels.
        """
        scale_n1 = np.float32(FOCAL_PX) / points_n3[..., 2:]
        return points_n3[..., :2] * scale_n1 + np.float32(FRAME_PX / 2)


@dataclass(frozen=True)
class Crop:
    """Describes a square that is cut out of the frame."""

    centre_px: tuple[float, float]
    """Centre (u, v) of the square in frame pixels."""
    side_px: float
    """Side of the square in frame pixels."""

    def from_frame(self, points_n2: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return points in crop coordinates.

        Args:
            points_n2: points, (..., 2), in frame pixels.

        Returns:
            Points, (..., 2), in crop coordinates; [-1, 1] inside the crop.
        """
        centre = np.asarray(self.centre_px, dtype=np.float32)
        return (points_n2 - centre) * np.float32(2.0 / self.side_px)


def look_at(
    position_mm: tuple[float, float, float], target_mm: tuple[float, float, float]
) -> Camera:
    """Return an upright camera that looks at a point.

    Args:
        position_mm: place of the camera, (3,), in mm in world axes.
        target_mm: the point, (3,), in mm in world axes; not straight above or below the camera.
    """
    position = np.asarray(position_mm, dtype=np.float64)
    forward = np.asarray(target_mm, dtype=np.float64) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(forward, right), forward])
    return Camera(position.astype(np.float32), axes.astype(np.float32))


def draw_crop(joints_j2: NDArray[np.float32], rng: np.random.Generator) -> Crop:
    """Draw the crop around a person at random.

    Args:
        joints_j2: joints, (J, 2), in frame pixels.
        rng: generator of the margin and the shift.
    """
    low, high = joints_j2.min(axis=0), joints_j2.max(axis=0)
    margin = rng.uniform(*CROP_MARGIN)
    jitter_2 = rng.uniform(-CROP_JITTER, CROP_JITTER, 2)
    side = max(float((high - low).max()), 1.0) * margin
    centre = (low + high) / 2 + jitter_2 * side
    return Crop((float(centre[0]), float(centre[1])), side)


# These are the usual four places in a motion-capture hall, rounded: the corners of a long room.
CAMERAS: tuple[Camera, ...] = tuple(
    look_at(place, (0.0, 0.0, 900.0))
    for place in (
        (1900.0, 4950.0, 1580.0),
        (1900.0, -5100.0, 1600.0),
        (-1700.0, 5180.0, 1500.0),
        (-1680.0, -3860.0, 1550.0),
    )
)
