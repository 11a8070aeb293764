"""Lambda: a 2D pose becomes one depth offset per joint and the camera's elevation.

Shape letters: B batch, J joints, W width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["HeadActivation", "Lambda"]

HeadActivation = Literal["linear", "leaky_relu"]

_SLOPE = 0.01


class Lambda(nn.Module):
    """A shared residual block, then a branch for the depths and one for the elevation."""

    def __init__(
        self,
        width: int = 1024,
        *,
        joints: int = 17,
        root: int = 0,
        head_activation: HeadActivation = "linear",
        input_scale: float = 10.0,
    ) -> None:
        """Build the layers.

        Args:
            width: W, neurons per layer.
            joints: J.
            root: the joint whose depth offset is 0 by definition.
            head_activation: what follows the last layer of both branches.
            input_scale: factor on the normalised pose, which is about .1 in size.
        """
        super().__init__()
        self.root = root
        self.input_scale = input_scale
        self.shared = nn.Sequential(nn.Linear(2 * joints, width), _Residual(width))
        self.depths = nn.Sequential(_Residual(width), _Residual(width), nn.Linear(width, joints))
        self.angle = nn.Sequential(_Residual(width), _Residual(width), nn.Linear(width, 1))
        self.head = nn.LeakyReLU(_SLOPE) if head_activation == "leaky_relu" else nn.Identity()

    def forward(self, normalised_bj2: Tensor) -> tuple[Tensor, Tensor]:
        """Return depth offsets (B, J), in head-to-root lengths, and elevations (B,), radians.

        Args:
            normalised_bj2: normalised 2D poses (B, J, 2), no unit, root at zero (`geometry`).
        """
        features_bw = self._features(normalised_bj2)
        return self._offsets(features_bw), self.head(self.angle(features_bw)).squeeze(1)

    def offsets(self, normalised_bj2: Tensor) -> Tensor:
        """Return the depth offsets alone, without the branch for the elevation.

        Args:
            normalised_bj2: normalised 2D poses (B, J, 2), no unit, root at zero (`geometry`).

        Returns:
            Depths relative to the root's (B, J), head-to-root lengths; the root's is 0.
        """
        return self._offsets(self._features(normalised_bj2))

    def _features(self, normalised_bj2: Tensor) -> Tensor:
        return self.shared(self.input_scale * normalised_bj2.flatten(1))

    def _offsets(self, features_bw: Tensor) -> Tensor:
        offsets_bj = self.head(self.depths(features_bw))
        is_root_j = torch.arange(offsets_bj.shape[1], device=offsets_bj.device) == self.root
        return offsets_bj.masked_fill(is_root_j, 0.0)


class _Residual(nn.Module):
    """Two linear layers, then the input added; LeakyReLU after each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.activation = nn.LeakyReLU(_SLOPE)

    def forward(self, x_bw: Tensor) -> Tensor:
        inner_bw = self.activation(self.second(self.activation(self.first(x_bw))))
        return self.activation(x_bw + inner_bw)
