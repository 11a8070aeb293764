"""Recovers the cameras of a room from 3D poses and the 2D poses that they saw.

A camera must project the 3D joints to the 2D joints. It is fitted with its lens to some frames of
all of a subject's sequences; those that no common camera sees do not spoil it.

Frames and units: world and camera axes in mm; 2D in pixels of the full frame.
Shape letters: F frames, J joints, N poses, n points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from selfpose.data.formats.human36m_protocol import FRAME_SIZES, JOINTS
from selfpose.data.plausibility import SHIFTED_2D, lens_fault

__all__ = ["PoseCamera", "fit_camera", "recover_camera"]

FIT_FRAMES = 400
"""Number of frames from which a camera is recovered, about."""
FIT_GUESS_PX = (1145.0, 500.0)
"""Focal length and centre in pixels from which the fit of a camera starts: those of a lens that
sees a room from its corner."""
FIT_ERROR_PX = 5.0
"""Error of a fitted camera in pixels from which the two files do not belong together."""

FARTHEST_CENTRE_PX = 25.0
"""Largest distance of a lens's centre from the middle of the frame, in x or y. Human3.6M's are off
by up to 20 pixels, as VideoPose3D has them; a shift of all 2D joints moves the centre with them."""


@dataclass(frozen=True)
class PoseCamera:
    """Holds the place and rotation of a camera that was recovered from poses."""

    world_to_camera_33: NDArray[np.float64]
    """Rotation from world axes to camera axes, (3, 3), for column vectors."""
    shift_mm: NDArray[np.float64]
    """The world's origin in camera axes, (3,), in mm."""
    error_px: float
    """Root of the mean squared distance between projected 3D joints and 2D joints, in pixels."""
    intrinsics_33: NDArray[np.float64]
    """Matrix of intrinsics, (3, 3), in pixels."""
    distortion_5: NDArray[np.float64]
    """OpenCV's coefficients k1, k2, p1, p2, k3, (5,)."""

    @property
    def fault(self) -> str:
        """What is wrong with the camera; empty if nothing is."""
        mirrors = lens_fault(np.diag(self.intrinsics_33)[:2].tolist(), self.world_to_camera_33)
        if mirrors:
            return mirrors
        if not self.error_px < FIT_ERROR_PX:
            return "no camera sees the 3D poses where the 2D poses are"
        off_2 = np.abs(self.intrinsics_33[:2, 2] - FIT_GUESS_PX[1])
        return "" if off_2.max() <= FARTHEST_CENTRE_PX else SHIFTED_2D

    def project(self, joints_nj3: NDArray[Any]) -> NDArray[np.float64]:
        """Return where the camera sees joints (N, J, 3), in mm in camera axes: (N, J, 2), px."""
        joints_m3 = joints_nj3.reshape(-1, 3).astype(np.float64)
        finite_m = np.isfinite(joints_m3).all(axis=1)
        pixels_m2 = np.full((len(joints_m3), 2), np.nan)
        if finite_m.any():
            pixels_m2[finite_m] = cv2.projectPoints(
                joints_m3[finite_m], np.zeros(3), np.zeros(3), self.intrinsics_33, self.distortion_5
            )[0][:, 0]
        return pixels_m2.reshape(*joints_nj3.shape[:2], 2)

    def to_camera(self, joints_fj3: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return joints in camera axes.

        Args:
            joints_fj3: joints in world axes, (..., 3), in mm.

        Returns:
            Joints in camera axes, (..., 3), in mm.
        """
        turned: NDArray[np.float64] = np.matmul(joints_fj3, self.world_to_camera_33.T)
        return turned + self.shift_mm


def fit_camera(
    joints_n3: NDArray[np.float64], pixels_n2: NDArray[np.float64], size: tuple[int, int]
) -> PoseCamera:
    """Recover a camera from points and their projections.

    Args:
        joints_n3: points, (n, 3), in mm in world axes.
        pixels_n2: where the camera sees the points, (n, 2), in pixels of the frame.
        size: width and height of the frame in pixels.
    """
    focal, centre = FIT_GUESS_PX
    guess = np.asarray([[focal, 0, centre], [0, focal, centre], [0, 0, 1]])
    origin_3 = joints_n3.mean(axis=0)  # points around zero keep more digits in float32
    error_px, lens_33, distortion_5, (turn,), (shift,) = cv2.calibrateCamera(
        [(joints_n3 - origin_3).astype(np.float32)],
        [pixels_n2.astype(np.float32)],
        size,
        guess,
        np.zeros(5),
        flags=cv2.CALIB_USE_INTRINSIC_GUESS,
    )
    rotation_33 = np.asarray(cv2.Rodrigues(turn)[0], dtype=np.float64)
    return PoseCamera(
        rotation_33,
        np.asarray(shift).reshape(3) - rotation_33 @ origin_3,
        float(error_px),
        np.asarray(lens_33, dtype=np.float64),
        np.asarray(distortion_5, dtype=np.float64).reshape(-1),
    )


def recover_camera(
    poses: Mapping[str, NDArray[Any]], truth: Mapping[str, Any], *, camera: int
) -> PoseCamera:
    """Recover a camera of a subject from frames of all its sequences.

    Sequences that no common camera sees are set aside one by one, the worst first, as long as more
    than half are left; the checks name them later.

    Args:
        poses: 3D joints of each sequence, (F, 32, 3), in mm in world axes.
        truth: true 2D joints of each sequence and camera, (F, 17, 2), in pixels.
        camera: index of the camera.
    """
    samples = {}
    for action, joints_fj3 in poses.items():
        pixels_fj2 = truth[action][camera] if action in truth else None
        if pixels_fj2 is not None:
            share = FIT_FRAMES // len(poses) + 1
            samples[action] = _sample(np.asarray(joints_fj3), np.asarray(pixels_fj2), share)
    samples = {action: sample for action, sample in samples.items() if len(sample[0])}
    size, least = FRAME_SIZES[camera], len(samples) // 2 + 1
    left = dict(samples)
    fitted = _NO_CAMERA
    while len(left) >= least:
        fitted = _fit_samples(list(left.values()), size)
        if fitted.error_px < FIT_ERROR_PX:
            return fitted
        errors = {action: _error(fitted, *sample) for action, sample in left.items()}
        del left[max(errors, key=lambda action: errors[action])]
    # A sequence that is mirrored can pull the camera so far that others look worse.
    for action in samples if len(samples) > 2 else ():
        other = _fit_samples([part for name, part in samples.items() if name != action], size)
        if other.error_px < FIT_ERROR_PX:
            return other
    return fitted


def _sample(
    joints_fj3: NDArray[Any], pixels_fj2: NDArray[Any], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points (n, 3) and their projections (n, 2) from some frames, without NaN."""
    frames = min(len(joints_fj3), len(pixels_fj2))
    some = np.linspace(0, frames - 1, min(frames, count)).astype(int)
    joints_n3 = joints_fj3[some][:, JOINTS["h36m17"][1]].reshape(-1, 3).astype(np.float64)
    pixels_n2 = pixels_fj2[some].reshape(-1, 2).astype(np.float64)
    good_n = np.isfinite(joints_n3).all(axis=1) & np.isfinite(pixels_n2).all(axis=1)
    return joints_n3[good_n], pixels_n2[good_n]


def _fit_samples(
    samples: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], size: tuple[int, int]
) -> PoseCamera:
    joints_n3, pixels_n2 = (np.concatenate(parts) for parts in zip(*samples, strict=True))
    try:
        fitted = fit_camera(joints_n3, pixels_n2, size)
    except cv2.error:  # points that no camera can see, such as points in one place
        return _NO_CAMERA
    return fitted if np.isfinite(fitted.error_px) else _NO_CAMERA


def _error(
    camera: PoseCamera, joints_n3: NDArray[np.float64], pixels_n2: NDArray[np.float64]
) -> float:
    """Return the median distance of projected points to their places, in pixels."""
    seen_n2 = camera.project(camera.to_camera(joints_n3)[None])[0]
    distance = float(np.median(np.linalg.norm(seen_n2 - pixels_n2, axis=1)))
    return distance if np.isfinite(distance) else np.inf


_NO_CAMERA = PoseCamera(np.eye(3), np.zeros(3), np.inf, np.eye(3), np.zeros(5))
"""Stands for a camera that cannot be recovered."""
