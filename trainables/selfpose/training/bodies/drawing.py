"""Draws 2D poses as bodies, each time otherwise: like masks, but of poses that are known.

A layer (a leg, the trunk) is the union of its capsules. Layers cover each other in random order of
depth. Bodies are more or less stout, blurred and noisy. Where the masks tell left from right by
their brightness, so do the drawings. No image is used.

Frames and units: crop coordinates and images as in `method.renderer`; widths in mean limb lengths.
Shape letters: B batch, J joints, P parts, E limbs, G layers, S image side in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from selfpose.method.renderer import SIDE_BRIGHTNESS
from selfpose.method.skeleton import Layout
from selfpose.training.bodies.shapes import BodyShape, Part, Tip

__all__ = ["BodyRenderer", "cover_layers", "stack_layers"]

_STOUTEST = 1.35
"""Largest factor on all widths of a body."""
_THINNEST = 0.75
"""Smallest factor on all widths of a body."""
_UNEVEN = 0.075
"""Largest difference of a part's width from the others, as a share."""
_BRIGHT = (0.9, 1.0)
"""Least and highest brightness of bright parts, where sides show."""
_MIDDLE = (0.55, 0.95)
"""Least and highest brightness of middle parts, where sides show."""
_DIM = (SIDE_BRIGHTNESS, 1.1 * SIDE_BRIGHTNESS)
"""Least and highest brightness of dim parts, where sides show."""
_BLUR = 0.6
"""Largest share of the smoothed picture in a drawing."""
_NOISE = 0.03
"""Largest standard deviation of the noise, for images in [-1, 1]."""
_AT_ONCE = 16
"""Number of bodies that a CPU draws together: few enough that its cache still holds them."""
_LONG = 0.9
"""Usual length, in mean limb lengths, from which a limb tells the size of a pose."""


class BodyRenderer:
    """Draws poses of one layout."""

    def __init__(
        self,
        layout: Layout,
        shape: BodyShape,
        image_size: int,
        *,
        tells_sides: bool,
        generator: torch.Generator,
    ) -> None:
        """Fix what is drawn.

        Args:
            layout: of the poses.
            shape: widths and layers of its parts.
            image_size: S, pixels.
            tells_sides: whether right parts are brighter than left ones, as in masks that are
                shaded by hue.
            generator: of the CPU; draws widths, order, brightness, blur and noise.
        """
        self.size, self.tells_sides, self.generator = image_size, tells_sides, generator
        self.tips = shape.tips
        self._names = layout.joints
        parts = [*shape.parts, *(tip.part for tip in shape.tips)]
        self._ends_p2 = torch.tensor(
            [
                [layout.joints.index(part.start), layout.joints.index(part.end)]
                for part in shape.parts
            ]
        )
        self._radii_p = torch.tensor([part.radius for part in parts])
        self._members = [
            [i for i, part in enumerate(parts) if part.layer == layer] for layer in shape.layers
        ]
        self._brightness = [_brightness(parts, members) for members in self._members]
        self._limbs_e2 = torch.tensor(layout.limbs)
        self._usual_e = torch.tensor(layout.bone_ratios)

    @torch.no_grad()
    def __call__(self, joints_bj2: Tensor) -> Tensor:
        """Return bodies (B, 1, S, S), from -1 (background) to 1, of joints (B, J, 2).

        Args:
            joints_bj2: 2D poses, crop coordinates, on any device.
        """
        unit_b = self._unit(joints_bj2)
        ends_bp22 = self._ends(joints_bj2, unit_b)
        radii_bp = self._draw_radii(len(joints_bj2)).to(unit_b.device) * unit_b[:, None]
        step = _AT_ONCE if joints_bj2.device.type == "cpu" else len(joints_bj2)
        pairs = zip(torch.split(ends_bp22, step), torch.split(radii_bp, step), strict=True)
        cover_bgss = torch.cat([cover_layers(*pair, self._members, self.size) for pair in pairs])
        shades_bg = self._draw_shades(len(joints_bj2)).to(unit_b.device)
        order_bg = self._random(*shades_bg.shape).argsort(dim=1).to(unit_b.device)
        return self._blur(stack_layers(cover_bgss, shades_bg, order_bg))

    def _random(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator)

    def _between(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * self._random(*shape)

    def _draw_radii(self, batch: int) -> Tensor:
        """Return the radius of each part (B, P), in mean limb lengths."""
        stout_b1 = self._between(_THINNEST, _STOUTEST, batch, 1)
        uneven_bp = self._between(-_UNEVEN, _UNEVEN, batch, len(self._radii_p))
        return self._radii_p * (stout_b1 + uneven_bp)

    def _unit(self, joints_bj2: Tensor) -> Tensor:
        """Return about the mean limb's length (B,), crop coordinates.

        Long limbs that are hardly foreshortened tell it: the third longest for its usual length.
        """
        ends_be22 = joints_bj2[:, self._limbs_e2.to(joints_bj2.device)]
        length_be = (ends_be22[:, :, 0] - ends_be22[:, :, 1]).norm(dim=-1)
        relative_be = length_be / self._usual_e.to(length_be)
        long_e = self._usual_e > _LONG
        return relative_be[:, long_e.to(length_be.device)].topk(3, dim=1).values[:, 2]

    def _ends(self, joints_bj2: Tensor, unit_b: Tensor) -> Tensor:
        """Return the two ends of each part (B, P, 2, 2), crop coordinates."""
        ends_bp22 = joints_bj2[:, self._ends_p2.to(joints_bj2.device)]
        tips = [self._draw_tip(tip, joints_bj2, unit_b[:, None]) for tip in self.tips]
        return torch.cat((ends_bp22, *(tip.unsqueeze(1) for tip in tips)), dim=1)

    def _draw_tip(self, tip: Tip, joints_bj2: Tensor, unit_b1: Tensor) -> Tensor:
        """Return both ends (B, 2, 2) of where a foot or a hand might be."""
        near, far = (self._names.index(joint) for joint in (tip.near, tip.far))
        at_b2, batch, device = joints_bj2[:, far], len(joints_bj2), joints_bj2.device
        along_b2 = at_b2 - joints_bj2[:, near]
        if not tip.is_foot:
            length_b1 = self._between(0.1, 0.55, batch, 1).to(device)
            return torch.stack((at_b2, at_b2 + length_b1 * along_b2), dim=1)
        down_b2 = along_b2 / along_b2.norm(dim=-1, keepdim=True).clamp(min=1e-3)
        across_b2 = torch.stack((-down_b2[:, 1], down_b2[:, 0]), dim=-1)
        heel_b1 = self._between(0.1, 0.25, batch, 1).to(device)
        forward_b1 = self._between(-0.8, 0.8, batch, 1).to(device)
        drop_b1 = self._between(0.0, 0.15, batch, 1).to(device)
        heel_b2 = at_b2 + unit_b1 * heel_b1 * down_b2
        toe_b2 = heel_b2 + unit_b1 * (forward_b1 * across_b2 + drop_b1 * down_b2)
        return torch.stack((heel_b2, toe_b2), dim=1)

    def _draw_shades(self, batch: int) -> Tensor:
        """Return the brightness of each layer (B, G), 0 to 1."""
        if not self.tells_sides:
            return torch.ones(batch, len(self._members))
        return torch.stack([self._between(*each, batch) for each in self._brightness], dim=1)

    def _blur(self, drawn_bss: Tensor) -> Tensor:
        """Return pictures (B, 1, S, S) in about [-1, 1], some blurred and all with some noise."""
        drawn_b1ss = drawn_bss.unsqueeze(1)
        batch, device = len(drawn_b1ss), drawn_b1ss.device
        padded = functional.pad(drawn_b1ss, (1, 1, 1, 1), mode="replicate")
        smooth_b1ss = functional.avg_pool2d(padded, 3, 1)
        blur_b111 = self._between(0, _BLUR, batch, 1, 1, 1).to(device)
        noise_b1ss = torch.randn(drawn_b1ss.shape, generator=self.generator)
        noise_b1ss = self._between(0, _NOISE, batch, 1, 1, 1) * noise_b1ss
        drawn_b1ss = drawn_b1ss + blur_b111 * (smooth_b1ss - drawn_b1ss)
        return 2 * (drawn_b1ss + noise_b1ss.to(device)) - 1


def cover_layers(
    ends_bp22: Tensor, radii_bp: Tensor, members: Sequence[Sequence[int]], image_size: int
) -> Tensor:
    """Return how much of each pixel each layer covers (B, G, S, S), 0 to 1.

    Args:
        ends_bp22: both ends of each part (B, P, 2, 2), crop coordinates.
        radii_bp: half the width of each part (B, P), crop coordinates.
        members: the parts of each of the G layers.
        image_size: S, pixels.
    """
    start_bp2 = ends_bp22[:, :, 0]
    along_bp2 = ends_bp22[:, :, 1] - start_bp2
    share_bp2 = along_bp2 / along_bp2.square().sum(-1, keepdim=True).clamp(min=1e-6)
    grid_s = torch.linspace(-1, 1, image_size, device=ends_bp22.device)
    x_bp1s = (grid_s - start_bp2[..., :1]).unsqueeze(2)
    y_bps1 = (grid_s - start_bp2[..., 1:]).unsqueeze(3)
    t_bpss = x_bp1s * share_bp2[..., 0, None, None] + y_bps1 * share_bp2[..., 1, None, None]
    t_bpss.clamp_(0, 1)
    square_bpss = (x_bp1s - t_bpss * along_bp2[..., 0, None, None]).square_()
    y_bpss = y_bps1 - t_bpss.mul_(along_bp2[..., 1, None, None])
    distance_bpss = square_bpss.addcmul_(y_bpss, y_bpss).sqrt_()
    pixels = (image_size - 1) / 2  # in a unit of crop coordinates
    inside_bp = radii_bp * pixels + 0.5
    cover_bpss = distance_bpss.mul_(-pixels).add_(inside_bp[..., None, None]).clamp_(0, 1)
    return torch.stack([cover_bpss[:, list(parts)].amax(1) for parts in members], dim=1)


def stack_layers(cover_bgss: Tensor, shades_bg: Tensor, order_bg: Tensor) -> Tensor:
    """Return the layers over each other (B, S, S), 0 (background) to 1.

    Args:
        cover_bgss: how much of each pixel each layer covers (B, G, S, S), 0 to 1.
        shades_bg: brightness of each layer (B, G), 0 to 1.
        order_bg: the layers of each body from the back to the front, int64 (B, G).
    """
    rows_b = torch.arange(len(cover_bgss), device=cover_bgss.device)
    drawn_bss = torch.zeros_like(cover_bgss[:, 0])
    for layer_b in order_bg.unbind(1):
        shade_b11 = shades_bg[rows_b, layer_b][:, None, None]
        drawn_bss += cover_bgss[rows_b, layer_b] * (shade_b11 - drawn_bss)
    return drawn_bss


def _brightness(parts: list[Part], members: list[int]) -> tuple[float, float]:
    """Return the least and the highest brightness of a layer."""
    return {"bright": _BRIGHT, "dim": _DIM, "middle": _MIDDLE}[parts[members[0]].shade]
