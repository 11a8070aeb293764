"""What of the networks is trained before a trial's first step: Omega on drawn poses, Phi on masks.

Frames and units: as in `geometry` and `images`.
Shape letters: B batch, N poses, J joints, S image side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from selfpose.config import SelfPoseConfig
from selfpose.data.images import ImageFeed
from selfpose.method.renderer import SkeletonRenderer
from selfpose.networks import Omega, Phi
from selfpose.training.step import make_optimiser, take_step

__all__ = ["pretrain_omega", "pretrain_phi"]


def pretrain_omega(
    omega: Omega,
    poses_nj2: Tensor,
    *,
    pen: SkeletonRenderer,
    config: SelfPoseConfig,
    generator: torch.Generator,
    progress: Callable[[int, int, str], None],
) -> None:
    """Teach Omega to read drawn prior poses, on the device of the poses.

    Args:
        omega: changed in place.
        poses_nj2: the prior's 2D poses (N, J, 2), crop coordinates.
        pen: draws them.
        config: steps, rate, batch and jitter.
        generator: of the CPU; draws poses and shifts.
        progress: told steps done and in all.
    """

    def loss() -> Tensor:
        pick = torch.randint(len(poses_nj2), (config.batch_size,), generator=generator)
        shift_b12 = 2 * torch.rand((config.batch_size, 1, 2), generator=generator) - 1
        u_bj2 = poses_nj2[pick.to(poses_nj2.device)]
        u_bj2 = u_bj2 + config.keypoint.jitter * shift_b12.to(u_bj2.device)
        return (omega(pen(u_bj2)) - u_bj2).square().mean()

    _pretrain(omega, loss, steps=config.pretrain_keypoints, config=config, progress=progress)


def pretrain_phi(
    phi: Phi,
    feed: ImageFeed,
    *,
    config: SelfPoseConfig,
    generator: torch.Generator,
    progress: Callable[[int, int, str], None],
) -> None:
    """Teach Phi to output the foreground mask, on the device of the feed.

    Args:
        phi: changed in place.
        feed: images with masks.
        config: steps, rate and batch.
        generator: of the CPU; draws the images.
        progress: told steps done and in all.
    """

    def loss() -> Tensor:
        pick = torch.randint(len(feed), (config.batch_size,), generator=generator)
        images_b3ss, masks_b1ss = feed.fetch(pick)
        return (phi(images_b3ss) - masks_b1ss).square().mean()

    _pretrain(phi, loss, steps=config.pretrain_silhouette, config=config, progress=progress)


def _pretrain(
    network: nn.Module,
    loss: Callable[[], Tensor],
    *,
    steps: int,
    config: SelfPoseConfig,
    progress: Callable[[int, int, str], None],
) -> None:
    optimiser = make_optimiser([(network, config.pretrain_learning_rate)])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        value = loss()
        take_step(optimiser, value, clip=config.gradient_clip)
        schedule.step()
        if step % 50 == 0:
            progress(step, steps, f"error {float(value.detach()):.4f}")
