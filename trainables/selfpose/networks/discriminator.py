"""D: judges patches of a skeleton image at several scales.

Shape letters: B batch, S image side in pixels, P side of a map of patches.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from selfpose.networks.initialisation import draw_small_weights

__all__ = ["D", "patch_sizes"]

_SCALES = (1, 2, 4)


class D(nn.Module):
    """Separate patch networks on the image, its half and its quarter."""

    def __init__(self, width: int = 64, *, image_size: int = 128) -> None:
        """Build the layers.

        Args:
            width: channels of the first layer; 8 times as many in the fourth.
            image_size: side of the skeleton images, pixels. A scale whose map of patches would
                be under 2x2 is left out.

        Raises:
            ValueError: no scale is left.
        """
        super().__init__()
        self.scales = tuple(patch_sizes(image_size))
        if not self.scales:
            raise ValueError(f"image_size: {image_size} px is too small for D; give at least 32")
        self.networks = nn.ModuleList(_patch_network(width) for _ in self.scales)
        draw_small_weights(self)

    def forward(self, skeletons_b1ss: Tensor) -> list[Tensor]:
        """Judge skeleton images at every scale.

        Args:
            skeletons_b1ss: skeleton images (B, 1, S, S) in [-1, 1].

        Returns:
            One map of judgements (B, 1, P, P) per scale, no unit, real near 1 and fake near 0.
        """
        return [self.at_scale(skeletons_b1ss, scale) for scale in self.scales]

    def at_scale(self, skeletons_b1ss: Tensor, scale: int) -> Tensor:
        """Return the map of judgements (B, 1, P, P) at one of `scales`.

        Args:
            skeletons_b1ss: skeleton images (B, 1, S, S) in [-1, 1].
            scale: by which the images are reduced first: 1, 2 or 4.
        """
        network = self.networks[self.scales.index(scale)]
        judgement: Tensor = network(_reduce(skeletons_b1ss, scale))
        return judgement


def _reduce(x_b1ss: Tensor, scale: int) -> Tensor:
    """Return bilinear samples between the two middle pixels of every `scale` on each axis."""
    if scale == 1:
        return x_b1ss
    first = scale // 2 - 1
    return functional.avg_pool2d(x_b1ss[..., first:, first:], 2, stride=scale)


def patch_sizes(image_size: int) -> dict[int, int]:
    """Return the side of the map of patches at each scale that D keeps, by scale."""
    sizes = {scale: image_size // scale // 8 - 2 for scale in _SCALES}
    return {scale: size for scale, size in sizes.items() if size >= 2}


def _patch_network(width: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(1, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    for factor, stride in ((1, 2), (2, 2), (4, 1)):
        layers += [
            nn.Conv2d(factor * width, 2 * factor * width, 4, stride=stride, padding=1),
            nn.InstanceNorm2d(2 * factor * width),
            nn.LeakyReLU(0.2, inplace=True),
        ]
    layers.append(nn.Conv2d(8 * width, 1, 4, padding=1))
    return nn.Sequential(*layers)
