"""Teaches Phi and Omega from pairs: images, and the poses that were read in their masks.

Frames and units: as in `images`. Shape letters: N images, M prior poses, B batch, J joints, S image
side in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selfpose.data.pictures.images import ImageFeed
from selfpose.method.geometry import pose_distance
from selfpose.method.renderer import SkeletonRenderer
from selfpose.networks.omega import Omega
from selfpose.networks.phi import Phi
from selfpose.training.bodies.distortion import draw_distortions
from selfpose.training.stages.part import StagePart
from selfpose.training.stages.pretraining import Pretraining, pretrain

__all__ = ["train_pairs"]


def train_pairs(
    phi: Phi,
    omega: Omega,
    feed: ImageFeed,
    *,
    read_nj2: Tensor,
    prior_mj2: Tensor,
    renderer: SkeletonRenderer,
    settings: Pretraining,
    generator: torch.Generator,
    part: StagePart,
) -> None:
    """Teach Phi to draw, and Omega to read, the pose that was read in the mask of each image.

    Omega goes on to read rendered poses of the prior too.

    Args:
        phi: changed in place.
        omega: changed in place.
        feed: the training images.
        read_nj2: the pose of each (N, J, 2), crop coordinates.
        prior_mj2: the prior's 2D poses (M, J, 2), crop coordinates.
        renderer: renders skeletons.
        settings: steps, batch, rate and clipping.
        generator: of the CPU; draws images, poses and distortions.
        part: takes the steps.
    """
    batch, device = settings.batch_size, read_nj2.device

    def loss() -> Tensor:
        rows_b = torch.randint(len(feed), (batch,), generator=generator)
        pick_b = torch.randint(len(prior_mj2), (batch,), generator=generator)
        of_images, of_prior = (draw_distortions(batch, generator).to(device) for _ in range(2))
        images_b3ss = of_images.images(feed.fetch(rows_b)[0])
        y_bj2 = of_images.poses(read_nj2[rows_b.to(device)])
        u_bj2 = of_prior.poses(prior_mj2[pick_b.to(device)])
        skeletons_b1ss = phi(images_b3ss)
        seen_bj2, read_bj2 = omega(torch.cat((skeletons_b1ss, renderer(u_bj2)))).split(batch)
        redrawn = (skeletons_b1ss - renderer(y_bj2)).square().mean()
        return pose_distance(seen_bj2, y_bj2) + pose_distance(read_bj2, u_bj2) + redrawn

    pretrain([phi, omega], loss, settings=settings, generator=generator, part=part)
