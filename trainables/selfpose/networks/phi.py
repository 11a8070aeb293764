"""Phi: an image becomes a skeleton image.

Shape letters: B batch, S image side in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selfpose.networks.initialisation import draw_small_weights

__all__ = ["Phi"]

_DOUBLINGS = 3
"""How often the number of channels doubles on the way to the narrowest map."""


class Phi(nn.Module):
    """Encoder and decoder without skip connections, linear output.

    The paper halves the image three times, to 16x16 at 128 px. Smaller images are halved less
    often, so that the narrowest map keeps the detail that separates two limbs; the layers and
    their parameters stay the same.
    """

    def __init__(self, width: int = 32, *, image_size: int = 128, narrowest: int = 16) -> None:
        """Build the layers.

        Args:
            width: channels of the first layers; 8 times as many in the narrowest map.
            image_size: side of the images, pixels.
            narrowest: side of the narrowest map, pixels: `image_size` halved at most three times.

        Raises:
            ValueError: `narrowest` cannot be reached.
        """
        super().__init__()
        halvings = _halvings(image_size, narrowest)
        layers = [*_block(3, width, kernel=7), *_block(width, width)]
        channels = width
        for i in range(_DOUBLINGS):
            layers += _block(channels, 2 * channels, stride=2 if i < halvings else 1)
            layers += _block(2 * channels, 2 * channels)
            channels *= 2
        layers.append(nn.Conv2d(channels, channels, 1, bias=False))
        layers += [*_block(channels, channels), *_block(channels, channels)]
        for i in range(_DOUBLINGS):
            if i >= _DOUBLINGS - halvings:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            layers += _block(channels, channels // 2)
            channels //= 2
            if channels > width:
                layers += _block(channels, channels)
        layers.append(nn.Conv2d(channels, 1, 3, padding=1))
        self.layers = nn.Sequential(*layers)
        draw_small_weights(self)
        for module in self.modules():  # a step is a fifth faster, on a CPU too
            if isinstance(module, nn.Conv2d):
                weight = module.weight.data
                module.weight.data = weight.contiguous(memory_format=torch.channels_last)

    def forward(self, images_b3ss: Tensor) -> Tensor:
        """Return skeleton images, about -1 (background) to 1.

        Args:
            images_b3ss: images (B, 3, S, S) in [-1, 1].

        Returns:
            Skeleton images (B, 1, S, S), no unit.
        """
        skeletons_b1ss: Tensor = self.layers(images_b3ss)
        return skeletons_b1ss


def _halvings(image_size: int, narrowest: int) -> int:
    for halvings in range(_DOUBLINGS + 1):
        if narrowest << halvings == image_size:
            return halvings
    raise ValueError(
        f"narrowest: a map of {narrowest} px cannot be reached by halving {image_size} px at most "
        f"{_DOUBLINGS} times"
    )


def _block(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]
