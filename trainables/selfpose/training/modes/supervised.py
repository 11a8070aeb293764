"""The upper reference: the same Phi, Omega and Lambda, taught with the full truth.

No part of the method. This is the only module of the training that reads the joints of the
training images; what it gives shows how far the networks can come at a size and in a time.

Frames and units: 2D crop coordinates, 3D camera axes with root at zero and mean limb length 1.
Shape letters: N training images, B images of this process, J joints, S image side in pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from selfpose.config import SelfPoseConfig
from selfpose.data.pictures.images import ImageFeed
from selfpose.data.store import Split
from selfpose.inference import ImagePoseModel, PoseModel, unit_bones
from selfpose.method.skeleton import Layout
from selfpose.training.acceleration import Branches
from selfpose.training.data_parallel import Team
from selfpose.training.modes.terms import Terms
from selfpose.training.optimiser import take_step

__all__ = ["Labels", "SupervisedBatch", "SupervisedMode", "read_labels", "supervised_loss"]


class Labels(NamedTuple):
    """Holds the true poses of images."""

    joints_2d_bj2: Tensor
    joints_3d_bj3: Tensor

    def pick(self, indices_b: Tensor) -> Labels:
        """Return the truth of some of the images."""
        here_b = indices_b.to(self.joints_2d_bj2.device, non_blocking=True)
        return Labels(self.joints_2d_bj2[here_b], self.joints_3d_bj3[here_b])


def read_labels(train: Split, layout: Layout, device: torch.device) -> Labels:
    """Return the truth of all training images, on the device."""
    poses_nj3 = unit_bones(torch.tensor(train.joints_3d), layout)
    return Labels(torch.tensor(train.joints_2d).to(device), poses_nj3.to(device))


class SupervisedBatch(NamedTuple):
    """Holds this process' share of a batch of images with their true poses."""

    images_b3ss: Tensor
    joints_2d_bj2: Tensor
    joints_3d_bj3: Tensor


class SupervisedMode:
    """Trains Phi, Omega and Lambda on images with their true poses."""

    def __init__(
        self,
        config: SelfPoseConfig,
        model: ImagePoseModel,
        *,
        feed: ImageFeed,
        labels: Labels,
        optimiser: torch.optim.Optimizer,
        team: Team,
    ) -> None:
        """Keep what a step needs.

        Args:
            config: batch, clipping and precision.
            model: the networks.
            feed: the training images.
            labels: of all of them.
            optimiser: has the networks.
            team: who trains.
        """
        self.config, self.model, self.feed, self.labels = config, model, feed, labels
        self.optimiser, self.team = optimiser, team

    def draw_batch(self, order: torch.Generator) -> SupervisedBatch:
        """Draw the images of a step, with their truth."""
        rows_a = torch.randint(len(self.feed), (self.config.batch_size,), generator=order)
        rows_b = self.team.share(rows_a)
        images_b3ss, _ = self.feed.fetch(rows_b)
        return SupervisedBatch(images_b3ss, *self.labels.pick(rows_b))

    def prepare(self, steps: int) -> object:
        """Set what changes from step to step: nothing; every step runs the same kernels."""
        return None

    def step(self, batch: tuple[Any, ...], branches: Branches) -> Terms:
        """Take one step, on the device alone; return what it reports."""
        given = SupervisedBatch(*batch)
        half = self.config.bf16 and given.images_b3ss.is_cuda
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            _, joints_bj2 = self.model.read(given.images_b3ss)
        loss = supervised_loss(joints_bj2, given, self.model)
        take_step(self.optimiser, loss, clip=self.config.gradient_clip, team=self.team)
        return {"total": loss}


def supervised_loss(joints_bj2: Tensor, truth: SupervisedBatch, model: PoseModel) -> Tensor:
    """Return the mean distance of joints from the truth, of the 2D pose plus of the 3D pose.

    Args:
        joints_bj2: 2D poses that the networks read (B, J, 2), crop coordinates.
        truth: of the images in which they were read.
        model: lifts them.

    Returns:
        The sum of both means, (), crop coordinates plus mean limb lengths.
    """
    poses_bj3 = unit_bones(model.lift(joints_bj2), model.layout)
    pairs = ((joints_bj2, truth.joints_2d_bj2), (poses_bj3, truth.joints_3d_bj3))
    return torch.stack([(a - b).norm(dim=-1).mean() for a, b in pairs]).sum()
