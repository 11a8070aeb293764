"""The skeleton renderer by Triton kernels, for poses in float32 on CUDA."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selfpose.method.renderer import Profile, SkeletonRenderer, draw_skeletons

__all__ = ["draw_by_kernels", "fuse_renderer"]

_MOST_LIMBS = 32
"""Largest number of limbs: the kernels keep those of a tile as the bits of a word."""


def fuse_renderer(renderer: SkeletonRenderer) -> None:
    """Let a renderer draw by kernels from now on.

    Args:
        renderer: changed in place; it is only given poses on CUDA.
    """
    renderer.draw = draw_by_kernels


def draw_by_kernels(
    joints_bj2: Tensor,
    limbs: Sequence[tuple[int, int]],
    *,
    image_size: int,
    sigma: float,
    profile: Profile,
    brightness: Sequence[float],
) -> Tensor:
    """Draw as `draw_skeletons` does, which also draws what the kernels do not.

    Args:
        joints_bj2: joints (B, J, 2), crop coordinates.
        limbs: the two joints of each limb.
        image_size: S, pixels.
        sigma: width of a limb, square root of crop coordinates.
        profile: how brightness falls with the distance.
        brightness: of each limb, in (0, 1].

    Returns:
        Images (B, 1, S, S) in [-1, 1].
    """
    if joints_bj2.dtype != torch.float32 or len(limbs) > _MOST_LIMBS:
        return draw_skeletons(
            joints_bj2,
            limbs,
            image_size=image_size,
            sigma=sigma,
            profile=profile,
            brightness=brightness,
        )
    from selfpose.cuda.kernels.drawing import DrawingSettings, draw

    squared = profile == "squared"
    return draw(
        joints_bj2, DrawingSettings(tuple(limbs), image_size, sigma, squared, tuple(brightness))
    )
