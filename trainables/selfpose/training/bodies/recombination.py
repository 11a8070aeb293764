"""Makes more 2D poses of those that the prior has: limbs of one pose on the trunk of another.

Frame: crop coordinates. Shape letters: B batch, J joints, E joints that are moved together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selfpose.method.skeleton import Layout
from selfpose.training.bodies.shapes import BodyShape

__all__ = ["recombine"]

_SHARE = 0.4
"""Share of poses of which each arm, and both legs together, are another's."""


def recombine(
    poses_bj2: Tensor, *, layout: Layout, shape: BodyShape, generator: torch.Generator
) -> Tensor:
    """Return poses (B, J, 2) some of whose limbs are those of others in the batch, moved along.

    Args:
        poses_bj2: 2D poses (B, J, 2), crop coordinates.
        layout: of the joints.
        shape: says which joints belong together.
        generator: of the CPU; draws who gets whose limbs.
    """
    batch, device = len(poses_bj2), poses_bj2.device
    mixed_bj2 = poses_bj2.clone()
    for stems, ends in shape.mixed:
        other_b = torch.randperm(batch, generator=generator).to(device)
        taken_b11 = (torch.rand(batch, 1, 1, generator=generator) < _SHARE).to(device)
        for stem in stems:
            side = stem.partition("_")[0] if len(stems) > 1 else ""
            ends_e = [layout.joints.index(end) for end in ends if end.startswith(side)]
            at = layout.joints.index(stem)
            offset_be2 = poses_bj2[other_b][:, ends_e] - poses_bj2[other_b, at][:, None]
            moved_be2 = poses_bj2[:, at, None] + offset_be2
            mixed_bj2[:, ends_e] = torch.where(taken_b11, moved_be2, poses_bj2[:, ends_e])
    return mixed_bj2
