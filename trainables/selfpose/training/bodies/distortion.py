"""Scales, turns and shifts crops and the poses in them together.

Frame: crop coordinates, y = matrix x + shift. Shape letters: B batch, C channels, J joints, S image
side in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["TURN", "Distortion", "draw_distortions"]

_SHIFT = 0.1
"""Largest shift along each axis, in crop coordinates."""
_SCALE = 0.12
"""Largest logarithm of a scale."""
TURN = 0.15
"""Largest turn of a crop, in radians."""


class Distortion(NamedTuple):
    """How each crop of a batch is distorted; the matrices only turn and scale."""

    matrix_b22: Tensor
    shift_b2: Tensor

    def poses(self, poses_bj2: Tensor) -> Tensor:
        """Return the poses (B, J, 2), crop coordinates, as they lie in the distorted crops."""
        return poses_bj2 @ self.matrix_b22.mT + self.shift_b2[:, None]

    def undo(self, poses_bj2: Tensor) -> Tensor:
        """Return poses (B, J, 2) of distorted crops as they lie in the crops themselves."""
        return (poses_bj2 - self.shift_b2[:, None]) @ self._inverse().mT

    def images(self, images_bcss: Tensor) -> Tensor:
        """Return the distorted crops (B, C, S, S); beyond a picture its border goes on."""
        inverse_b22 = self._inverse()
        theta_b23 = torch.cat((inverse_b22, -(inverse_b22 @ self.shift_b2[..., None])), dim=-1)
        grid_bss2 = functional.affine_grid(theta_b23, list(images_bcss.shape), align_corners=True)
        return functional.grid_sample(
            images_bcss, grid_bss2, align_corners=True, padding_mode="border"
        )

    def to(self, device: torch.device) -> Distortion:
        """Return the distortion on a device."""
        return Distortion(
            self.matrix_b22.to(device, non_blocking=True),
            self.shift_b2.to(device, non_blocking=True),
        )

    def _inverse(self) -> Tensor:
        """Return the inverse matrices (B, 2, 2), without waiting for the device."""
        square_b = self.matrix_b22[:, 0].square().sum(dim=-1)
        return self.matrix_b22.mT / square_b[:, None, None]


def draw_distortions(count: int, generator: torch.Generator, *, turn: float = TURN) -> Distortion:
    """Draw how `count` crops are scaled, turned and shifted.

    Args:
        count: B.
        generator: of the CPU.
        turn: the largest turn, in radians.
    """
    scale_b, angle_b, x_b, y_b = 2 * torch.rand((4, count), generator=generator) - 1
    scale_b, angle_b = (_SCALE * scale_b).exp(), turn * angle_b
    cos_b, sin_b = scale_b * angle_b.cos(), scale_b * angle_b.sin()
    matrix_b22 = torch.stack((cos_b, -sin_b, sin_b, cos_b), dim=-1).view(-1, 2, 2)
    return Distortion(matrix_b22, _SHIFT * torch.stack((x_b, y_b), dim=-1))
