"""From 2D to 3D and back: normalise, lift, rotate, project.

Frames and units:
    crop coordinates    x right, y down, [-1, 1] over the crop
    normalised pose     2D, root at zero, divided by 10 h, where h is the prior's mean distance
                        from root to head in crop coordinates: the image plane of a pinhole camera
                        of focal length 1 whose root stands at depth 10
    body frame          3D, root at zero, camera axes: x right, y down, z away from the camera;
                        the unit is the (projected) head-to-root length
Rotations are right-handed matrices applied to column vectors: Rx turns y towards z, Ry turns z
towards x.
Shape letters: B batch, J joints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "Elevation",
    "draw_rotations",
    "head_distance",
    "lift",
    "mirror_poses",
    "normalise_pose",
    "pose_distance",
    "pose_distances",
    "project",
    "rotate",
    "rotate_back",
    "rotation_x",
    "rotation_y",
]

Elevation = Literal["learned", "uniform", "none"]

ROOT_DEPTH = 10.0
"""How far the root stands from the virtual camera, in head-to-root lengths."""

_SMOOTH = 0.01
"""Distance of joints, in crop coordinates, below which it counts as its square does."""
_UNIFORM_ELEVATION_RAD = math.radians(20.0)


def head_distance(poses_nj2: Tensor, root: int, head: int) -> float:
    """Return h, the mean distance from root to head of the prior's poses.

    Args:
        poses_nj2: 2D poses (N, J, 2), crop coordinates.
        root: index of the root joint.
        head: index of the head joint.

    Returns:
        The mean over poses, in crop coordinates.
    """
    return float((poses_nj2[:, head] - poses_nj2[:, root]).norm(dim=-1).mean())


def normalise_pose(poses_bj2: Tensor, root: int, h: float) -> Tensor:
    """Move 2D poses so that the root is at zero, and divide them by 10 h.

    Args:
        poses_bj2: 2D poses (B, J, 2), crop coordinates.
        root: index of the root joint.
        h: the prior's mean distance from root to head, crop coordinates.

    Returns:
        Normalised poses (B, J, 2), no unit, root at zero.
    """
    return (poses_bj2 - poses_bj2[:, root : root + 1]) / (ROOT_DEPTH * h)


def mirror_poses(poses_bj2: Tensor, mirror: Sequence[int]) -> Tensor:
    """Return the mirror images (B, J, 2) of 2D poses whose x is 0 in the middle.

    Args:
        poses_bj2: 2D poses (B, J, 2), crop coordinates or normalised.
        mirror: for each joint, the same joint of the other side.
    """
    # Not by an index, which would have to be copied to the device.
    swapped_bj2 = torch.stack([poses_bj2[:, joint] for joint in mirror], dim=1)
    return torch.cat((-swapped_bj2[..., :1], swapped_bj2[..., 1:]), dim=-1)


def lift(normalised_bj2: Tensor, offsets_bj: Tensor) -> Tensor:
    """Place the joints of normalised poses at their depths.

    Args:
        normalised_bj2: normalised poses (B, J, 2), root at zero.
        offsets_bj: depths relative to the root's (B, J), head-to-root lengths; root's are 0.

    Returns:
        Poses (B, J, 3) in the body frame. A joint nearer than 1 to the camera is put at 1.
    """
    depth_bj1 = (ROOT_DEPTH + offsets_bj).clamp(min=1.0).unsqueeze(-1)
    return torch.cat((normalised_bj2 * depth_bj1, depth_bj1 - ROOT_DEPTH), dim=-1)


def project(poses_bj3: Tensor) -> Tensor:
    """Return what a camera sees of poses.

    Args:
        poses_bj3: poses (B, J, 3), body frame or a virtual camera's, head-to-root lengths.

    Returns:
        Normalised poses (B, J, 2), no unit. A joint nearer than 1 to the camera is seen as if at 1.
    """
    return poses_bj3[..., :2] / (poses_bj3[..., 2:] + ROOT_DEPTH).clamp(min=1.0)


def pose_distance(poses_bj2: Tensor, others_bj2: Tensor) -> Tensor:
    """Return the mean distance of joints, whose gradient is zero where poses are the same.

    Args:
        poses_bj2: 2D poses (B, J, 2), crop coordinates.
        others_bj2: 2D poses (B, J, 2), crop coordinates.

    Returns:
        The mean over joints and poses of the distance, made smooth below .01, (), crop coordinates.
    """
    return _smooth_distance(poses_bj2, others_bj2).mean()


def pose_distances(poses_bj2: Tensor, others_bj2: Tensor) -> Tensor:
    """Return for each pose what `pose_distance` is the mean of.

    Args:
        poses_bj2: 2D poses (B, J, 2), crop coordinates.
        others_bj2: 2D poses (B, J, 2), crop coordinates.

    Returns:
        The mean over joints of the smooth distance, (B,), crop coordinates.
    """
    return _smooth_distance(poses_bj2, others_bj2).mean(dim=1)


def _smooth_distance(joints_bj2: Tensor, others_bj2: Tensor) -> Tensor:
    return (joints_bj2 - others_bj2).square().sum(-1).add(_SMOOTH**2).sqrt()


def rotation_x(angle_b: Tensor) -> Tensor:
    """Return rotations about x (B, 3, 3) by angles (B,), radians."""
    cos, sin, zero, one = _parts(angle_b)
    rows = (one, zero, zero, zero, cos, -sin, zero, sin, cos)
    return torch.stack(rows, dim=-1).reshape(-1, 3, 3)


def rotation_y(angle_b: Tensor) -> Tensor:
    """Return rotations about y (B, 3, 3) by angles (B,), radians."""
    cos, sin, zero, one = _parts(angle_b)
    rows = (cos, zero, sin, zero, one, zero, -sin, zero, cos)
    return torch.stack(rows, dim=-1).reshape(-1, 3, 3)


def draw_rotations(
    elevation_b: Tensor, generator: torch.Generator, *, kind: Elevation = "learned"
) -> Tensor:
    """Draw the virtual camera of each pose: R = Rx(a) Ry(phi) Rx(elevation).

    The predicted elevation levels the person, phi ~ U(-pi, pi) turns them about the upright axis,
    and a tilts the camera again as the batch's own elevations are spread. Gradients are kept.

    Args:
        elevation_b: predicted elevations (B,), radians; only their shape counts unless learned.
        generator: draws phi and a.
        kind: `uniform` draws a within 20 degrees and does not level; `none` only turns.

    Returns:
        Rotations (B, 3, 3).
    """
    uniform_2b = torch.rand(
        2,
        len(elevation_b),
        generator=generator,
        device=elevation_b.device,
        dtype=elevation_b.dtype,
    )
    turn_b33 = rotation_y((2 * uniform_2b[0] - 1) * math.pi)
    if kind == "none":
        return turn_b33
    if kind == "uniform":
        return rotation_x((2 * uniform_2b[1] - 1) * _UNIFORM_ELEVATION_RAD) @ turn_b33
    normal_b = torch.randn(
        len(elevation_b), generator=generator, device=elevation_b.device, dtype=elevation_b.dtype
    )
    tilt_b = -elevation_b.mean() + elevation_b.std() * normal_b
    return rotation_x(tilt_b) @ turn_b33 @ rotation_x(elevation_b)


def rotate(rotations_b33: Tensor, poses_bj3: Tensor) -> Tensor:
    """Turn each pose about its root by its rotation.

    Args:
        rotations_b33: rotations (B, 3, 3) from the body frame to a virtual camera's frame.
        poses_bj3: poses (B, J, 3), body frame, any length unit.

    Returns:
        The poses (B, J, 3), virtual camera's frame, the same unit.
    """
    return poses_bj3 @ rotations_b33.transpose(1, 2)


def rotate_back(rotations_b33: Tensor, poses_bj3: Tensor) -> Tensor:
    """Turn each pose about its root by the inverse of its rotation.

    Args:
        rotations_b33: rotations (B, 3, 3) from the body frame to a virtual camera's frame.
        poses_bj3: poses (B, J, 3), virtual camera's frame, any length unit.

    Returns:
        The poses (B, J, 3), body frame, the same unit.
    """
    return poses_bj3 @ rotations_b33


def _parts(angle_b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return angle_b.cos(), angle_b.sin(), torch.zeros_like(angle_b), torch.ones_like(angle_b)
