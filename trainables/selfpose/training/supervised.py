"""The upper reference: the same Phi, Omega and Lambda, taught with the full truth.

No part of the method. This is the only module of the training that reads the joints of the
training images; what it gives shows how far the networks can come at a size and in a time.

Frames and units: 2D crop coordinates, 3D camera axes with root at zero and mean limb length 1.
Shape letters: N training images, B batch, J joints, S image side in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from selfpose.data.store import Split
from selfpose.inference import PoseModel, unit_bones
from selfpose.method.skeleton import Layout

__all__ = ["Labels", "read_labels", "supervised_loss"]


class Labels(NamedTuple):
    """The truth of images."""

    joints_2d_bj2: Tensor
    joints_3d_bj3: Tensor

    def pick(self, indices_b: Tensor) -> Labels:
        """Return the truth of some of them."""
        here_b = indices_b.to(self.joints_2d_bj2.device, non_blocking=True)
        return Labels(self.joints_2d_bj2[here_b], self.joints_3d_bj3[here_b])


def read_labels(train: Split, layout: Layout, device: torch.device) -> Labels:
    """Return the truth of all training images, on the device."""
    poses_nj3 = unit_bones(torch.tensor(train.joints_3d), layout)
    return Labels(torch.tensor(train.joints_2d).to(device), poses_nj3.to(device))


def supervised_loss(
    images_b3ss: Tensor, truth: Labels, model: PoseModel, *, bf16: bool = True
) -> Tensor:
    """Return the mean distance of joints from the truth, of the 2D pose plus of the 3D pose.

    Args:
        images_b3ss: images in [-1, 1].
        truth: of those images.
        model: the networks, in training mode.
        bf16: whether the networks compute in it on CUDA.
    """
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16 and images_b3ss.is_cuda):
        _, joints_bj2 = model.read(images_b3ss)
    poses_bj3 = unit_bones(model.lift(joints_bj2), model.layout)
    pairs = ((joints_bj2, truth.joints_2d_bj2), (poses_bj3, truth.joints_3d_bj3))
    return torch.stack([(a - b).norm(dim=-1).mean() for a, b in pairs]).sum()
