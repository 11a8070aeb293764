"""The reader of bodies: a mask, or a drawn body, becomes a 2D pose.

Not part of the model, and ours, not the paper's: it only helps to train it, so it may be as quick
to learn as can be.

Shape letters: B batch, J joints, S image side in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BodyReader"]

_LAYERS = ((1, 5, 2), (2, 3, 1), (2, 3, 2), (4, 3, 1), (4, 3, 2))
"""Channels over the width, kernel and stride of each convolution."""
_MAP_PX = 4
"""Side of the map that the linear layers see."""
_HIDDEN = 256


class BodyReader(nn.Module):
    """Strided convolutions and two linear layers."""

    def __init__(self, mean_j2: Tensor, *, width: int = 16) -> None:
        """Build the layers.

        Args:
            mean_j2: the prior's mean 2D pose (J, 2), crop coordinates; the reader begins near it.
            width: channels of the first layer.
        """
        super().__init__()
        self.joints = len(mean_j2)
        layers: list[nn.Module] = []
        channels = 1
        for factor, kernel, stride in _LAYERS:
            layers += [
                nn.Conv2d(channels, factor * width, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(factor * width),
                nn.ReLU(inplace=True),
            ]
            channels = factor * width
        last = nn.Linear(_HIDDEN, mean_j2.numel())
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.copy_(mean_j2.flatten())
        layers += [
            nn.AdaptiveAvgPool2d(_MAP_PX),
            nn.Flatten(),
            nn.Linear(_MAP_PX**2 * channels, _HIDDEN, bias=False),
            nn.BatchNorm1d(_HIDDEN),
            nn.ReLU(),
            last,
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, bodies_b1ss: Tensor) -> Tensor:
        """Return 2D poses (B, J, 2), crop coordinates, of bodies (B, 1, S, S) in [-1, 1]."""
        joints: Tensor = self.layers(bodies_b1ss)
        return joints.view(len(bodies_b1ss), self.joints, 2)
