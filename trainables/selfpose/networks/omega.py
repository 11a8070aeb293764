"""Omega: a skeleton image becomes 2D joints.

Frame: crop coordinates in [-1, 1], x right, y down.
Shape letters: B batch, J joints, S image side, M map side in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selfpose.networks.initialisation import draw_small_weights

__all__ = ["Omega", "expected_points"]


class Omega(nn.Module):
    """One map per joint, then the expected place on each axis."""

    def __init__(
        self,
        width: int = 32,
        *,
        image_size: int = 128,
        joints: int = 17,
        map_size: int | None = None,
    ) -> None:
        """Build the layers.

        Args:
            width: channels of the first layers.
            image_size: side of the skeleton images, pixels.
            joints: J, how many joints to find.
            map_size: M, side of the joints' maps; the paper's eighth of the image by default.
        """
        super().__init__()
        smallest = map_size if map_size is not None else image_size // 8
        side = image_size
        layers = [*_block(1, width, kernel=7), *_block(width, width)]
        channels = width
        for _ in range(3):
            stride = 2 if side > smallest else 1
            side //= stride
            layers += _block(channels, 2 * channels, stride=stride)
            layers += _block(2 * channels, 2 * channels)
            channels *= 2
        layers.append(nn.Conv2d(channels, joints, 1))
        self.layers = nn.Sequential(*layers)
        draw_small_weights(self)

    def forward(self, skeletons_b1ss: Tensor) -> Tensor:
        """Return 2D joints (B, J, 2), crop coordinates, of skeleton images (B, 1, S, S)."""
        return expected_points(self.layers(skeletons_b1ss).float())


def expected_points(maps_bjmm: Tensor) -> Tensor:
    """Return where each map expects its joint.

    Per axis: the mean over the other axis, a softmax, the expectation on [-1, 1].

    Args:
        maps_bjmm: joint maps (B, J, M, M), rows then columns, no unit.

    Returns:
        Joints (B, J, 2), crop coordinates.
    """
    grid_m = torch.linspace(
        -1.0, 1.0, maps_bjmm.shape[-1], device=maps_bjmm.device, dtype=maps_bjmm.dtype
    )
    # No matrix product, which autocast would round to bf16.
    x_bj = (maps_bjmm.mean(dim=2).softmax(dim=-1) * grid_m).sum(dim=-1)
    y_bj = (maps_bjmm.mean(dim=3).softmax(dim=-1) * grid_m).sum(dim=-1)
    return torch.stack((x_bj, y_bj), dim=-1)


def _block(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2),
        nn.InstanceNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]
