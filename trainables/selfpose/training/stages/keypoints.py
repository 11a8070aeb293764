"""Builds the stage `keypoints`: Omega, taught to read rendered poses of the prior.

Frames and units: as in `geometry`.
Shape letters: B batch, N poses, J joints.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from posetune.api import Progress, StageWork
from selfpose.data.store import open_store
from selfpose.method.renderer import SkeletonRenderer
from selfpose.networks.initialisation import seeded
from selfpose.networks.omega import Omega
from selfpose.training.prior import prior_poses
from selfpose.training.renderers import skeleton_renderer
from selfpose.training.stages.inputs import StageInputs
from selfpose.training.stages.part import StagePart
from selfpose.training.stages.pretraining import Pretraining, pretrain, save_network

__all__ = ["READS", "WEIGHTS_FILE", "build", "pretrain_omega"]

READS = (
    "pretrain_keypoints",
    "pretrain_learning_rate",
    "batch_size",
    "gradient_clip",
    "image_size",
    "width",
    "keypoint.map_px",
    "keypoint.jitter",
    "renderer.sigma",
    "renderer.profile",
    "renderer.side_coding",
    "mirror_prior",
)
WEIGHTS_FILE = "omega.safetensors"


def build(inputs: StageInputs, folder: Path, progress: Progress, work: StageWork) -> None:
    """Write Omega's weights into a folder."""
    fields, store, device = inputs.fields, open_store(inputs.store), inputs.device
    with seeded(inputs.seed):
        omega = Omega(
            fields["width"],
            image_size=fields["image_size"],
            joints=len(store.layout.joints),
            map_size=fields["keypoint.map_px"],
        ).to(device)
    renderer = skeleton_renderer(
        store.layout,
        fields["image_size"],
        sigma=fields["renderer.sigma"],
        profile=fields["renderer.profile"],
        side_coding=fields["renderer.side_coding"],
        device=device,
    )
    pretrain_omega(
        omega,
        prior_poses(store, mirrored=fields["mirror_prior"]).to(device),
        renderer=renderer,
        jitter=fields["keypoint.jitter"],
        settings=Pretraining.of(fields, steps=fields["pretrain_keypoints"]),
        generator=torch.Generator().manual_seed(inputs.seed),
        part=StagePart("steps", progress, work),
    )
    save_network(omega, folder / WEIGHTS_FILE)


def pretrain_omega(
    omega: Omega,
    poses_nj2: Tensor,
    *,
    renderer: SkeletonRenderer,
    jitter: float,
    settings: Pretraining,
    generator: torch.Generator,
    part: StagePart,
) -> None:
    """Teach Omega to read rendered poses, on the device of the poses.

    Args:
        omega: changed in place.
        poses_nj2: the prior's 2D poses (N, J, 2), crop coordinates.
        renderer: renders them.
        jitter: largest shift of a pose along each axis, crop coordinates.
        settings: steps, batch, rate and clipping.
        generator: of the CPU; draws poses and shifts.
        part: takes the steps.
    """

    def loss() -> Tensor:
        pick = torch.randint(len(poses_nj2), (settings.batch_size,), generator=generator)
        shift_b12 = 2 * torch.rand((settings.batch_size, 1, 2), generator=generator) - 1
        u_bj2 = poses_nj2[pick.to(poses_nj2.device)]
        u_bj2 = u_bj2 + jitter * shift_b12.to(u_bj2.device)
        return (omega(renderer(u_bj2)) - u_bj2).square().mean()

    pretrain([omega], loss, settings=settings, generator=generator, part=part)
