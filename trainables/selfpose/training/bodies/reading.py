"""Teaches the reader of bodies, and lets it read the masks of images.

Frame: crop coordinates. Shape letters: N poses or images, B batch, J joints.
"""

from __future__ import annotations

import torch
from torch import Tensor

from posetune.api import Progress
from selfpose.data.images import ImageFeed
from selfpose.method.geometry import pose_distance
from selfpose.method.skeleton import Layout
from selfpose.networks.body_reader import BodyReader
from selfpose.training.bodies.distortion import draw_distortions
from selfpose.training.bodies.drawing import BodyRenderer
from selfpose.training.bodies.recombination import recombine
from selfpose.training.bodies.shapes import BodyShape
from selfpose.training.stages.pretraining import Pretraining, pretrain

__all__ = ["read_masks", "train_reader"]

_ROWS_AT_ONCE = 256


def train_reader(
    reader: BodyReader,
    poses_nj2: Tensor,
    *,
    layout: Layout,
    shape: BodyShape,
    renderer: BodyRenderer,
    settings: Pretraining,
    generator: torch.Generator,
    progress: Progress,
) -> None:
    """Teach a network to read drawn bodies, on the device of the poses.

    Args:
        reader: changed in place.
        poses_nj2: the prior's 2D poses (N, J, 2), crop coordinates.
        layout: of their joints.
        shape: says which limbs may come from another pose.
        renderer: draws the bodies.
        settings: steps, bodies in each, rate and clipping.
        generator: of the CPU; draws poses and distortions.
        progress: told steps done and in all.
    """

    def loss() -> Tensor:
        pick = torch.randint(len(poses_nj2), (settings.batch_size,), generator=generator)
        u_bj2 = poses_nj2[pick.to(poses_nj2.device)]
        u_bj2 = recombine(u_bj2, layout=layout, shape=shape, generator=generator)
        u_bj2 = draw_distortions(len(u_bj2), generator).to(u_bj2.device).poses(u_bj2)
        return pose_distance(reader(renderer(u_bj2)), u_bj2)

    pretrain([reader], loss, settings=settings, progress=progress)


@torch.no_grad()
def read_masks(reader: BodyReader, feed: ImageFeed) -> Tensor:
    """Return the 2D poses (N, J, 2), crop coordinates, that a reader sees in all masks of a feed.

    Raises:
        ValueError: the feed gives no masks.
    """
    reader.eval()
    parts = []
    for rows_b in torch.split(torch.arange(len(feed)), _ROWS_AT_ONCE):
        _, masks_b1ss = feed.fetch(rows_b)
        if masks_b1ss is None:
            raise ValueError("the feed gives no masks to be read")
        parts.append(reader(masks_b1ss))
    return torch.cat(parts)
