"""Every term that training minimises; none needs a label.

Each is a pure function of tensors. `training` computes what they take and weighs their sum.

Frames as in `geometry`: 2D poses are crop coordinates or normalised, 3D poses in the body frame.
Shape letters: B batch, J joints, E limbs, S image side, P patches.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from selfpose.method.geometry import rotate_back

__all__ = [
    "bone_loss",
    "consistency_3d_loss",
    "deformation_loss",
    "discriminator_loss",
    "keypoint_loss",
    "realness_loss",
    "reprojection_2d_loss",
    "silhouette_loss",
]


def realness_loss(judgements: Sequence[Tensor]) -> Tensor:
    """Return how far D's maps are from calling fakes real (LSGAN): the mean over the scales."""
    return torch.stack([(j.float() - 1.0).square().mean() for j in judgements]).mean()


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Return D's own loss: half for real called fake, half for fake called real.

    Args:
        real: D's maps (B, 1, P, P) of drawn prior poses, one per scale.
        fake: the same of Phi's skeleton images.
    """
    called_real = torch.stack([j.float().square().mean() for j in fake]).mean()
    return 0.5 * realness_loss(real) + 0.5 * called_real


def keypoint_loss(
    read_bj2: Tensor, drawn_bj2: Tensor, redrawn_b1ss: Tensor, skeletons_b1ss: Tensor, share: float
) -> Tensor:
    """Return how badly Omega reads drawn poses and Phi's skeletons are redrawn from its reading.

    Args:
        read_bj2: Omega's joints of drawn prior poses (B, J, 2), crop coordinates.
        drawn_bj2: those prior poses.
        redrawn_b1ss: Omega's joints of Phi's skeletons, drawn (B, 1, S, S).
        skeletons_b1ss: Phi's skeletons.
        share: weight of the second part, 0 to 1; the first has the rest.
    """
    reading = (read_bj2 - drawn_bj2).square().mean()
    redrawing = (redrawn_b1ss - skeletons_b1ss).square().mean()
    return (1.0 - share) * reading + share * redrawing


def silhouette_loss(drawn_b1ss: Tensor, masks_b1ss: Tensor) -> Tensor:
    """Return the mean squared difference of a broadly drawn pose and the foreground, in [-1, 1]."""
    return (drawn_b1ss - masks_b1ss).square().mean()


def reprojection_2d_loss(reprojected_bj2: Tensor, normalised_bj2: Tensor) -> Tensor:
    """Return the mean L1 norm of the round trip's error in the image plane.

    Args:
        reprojected_bj2: the pose lifted, turned, projected, lifted, turned back and projected.
        normalised_bj2: the normalised pose it began as.
    """
    return (reprojected_bj2 - normalised_bj2).abs().sum(dim=(1, 2)).mean()


def consistency_3d_loss(turned_bj3: Tensor, lifted_again_bj3: Tensor) -> Tensor:
    """Return the mean distance of the turned pose and what is lifted from its projection."""
    return _norm(turned_bj3 - lifted_again_bj3).mean()


def deformation_loss(poses_bj3: Tensor, lifted_again_bj3: Tensor, rotations_b33: Tensor) -> Tensor:
    """Return how much the difference of two poses changes on the round trip.

    The pairs are the first and the second half of the batch.

    Args:
        poses_bj3: lifted poses, body frame.
        lifted_again_bj3: lifted from the turned poses' projections, in the turned frame.
        rotations_b33: from the body frame to the turned frame.
    """
    half = len(poses_bj3) // 2
    error_bj3 = poses_bj3 - rotate_back(rotations_b33, lifted_again_bj3)
    return _norm(error_bj3[:half] - error_bj3[half : 2 * half]).mean()


def bone_loss(
    poses_bj3: Tensor, limbs: Sequence[tuple[int, int]], ratios: Sequence[float]
) -> Tensor:
    """Penalise limbs whose length, over the mean limb's, is unusual; free of scale.

    Args:
        poses_bj3: poses, body frame.
        limbs: the two joints of each of the E limbs.
        ratios: usual length of each limb over the mean, no unit.
    """
    ends_e2, usual_e = _limbs_on(poses_bj3.device, tuple(limbs), tuple(ratios))
    usual_e = usual_e.to(poses_bj3.dtype)
    length_be = (poses_bj3[:, ends_e2[:, 0]] - poses_bj3[:, ends_e2[:, 1]]).norm(dim=-1)
    relative_be = length_be / length_be.mean(dim=1, keepdim=True).clamp(min=1e-8)
    return (usual_e - relative_be).square().sum(dim=1).mean()


@functools.cache
def _limbs_on(
    device: torch.device, limbs: tuple[tuple[int, int], ...], ratios: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Return them as tensors; a step would wait for its device if they were copied every time."""
    with torch.inference_mode(False):  # else a first use under it would spoil later training
        ends_e2 = torch.tensor(limbs, device=device)
        return ends_e2, torch.tensor(ratios, device=device, dtype=torch.float64)


def _norm(difference_bj3: Tensor) -> Tensor:
    """Return the norm over joints and axes (B,); its gradient at zero is zero."""
    return difference_bj3.flatten(1).norm(dim=1)
