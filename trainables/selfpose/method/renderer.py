"""The differentiable skeleton renderer beta: 2D joints become an image of the limbs.

Per pixel m and limb (a, b): t = clamp(<m-a, b-a> / max(|b-a|^2, 1e-6), 0, 1), the foot of m on
the limb is a + t (b-a), its distance d = sqrt(|m - foot|^2 + 1e-6), and the image is
max over limbs of brightness exp(-d / sigma^2), scaled to [-1, 1].

Only the brightest limb of a pixel has a gradient there, and moving the foot along the limb does
not change the distance (to first order). So the limb is found without a graph, and the gradient
of that one distance is written out by hand: -(1-t) of it for a, -t for b.

Both passes work in each limb's own frame, its middle (or a) at zero and its direction along u: a
pixel has the offsets (max(|u| - length / 2, 0), v) there, and u and v are each the sum of a row's
and a column's share. The squared distances of equally bright limbs are compared as whole numbers
whose lowest bits hold the limb, so that one minimum finds both: it costs 2^-18 of a square. (The
forward pass does not hold the length of limbs shorter than 1e-3 to the 1e-6 above.)

At B 96, S 128, 16 limbs the forward pass does 9 operations on each of 25 million pairs of pixel and
limb, the backward pass some 30 on each of 1.6 million pixels: 0.27 G operations, 3 ms at the
86 GFLOP/s at which one core of an AMD EPYC multiplies large matrices. What bounds it is that each
operation reads and writes its numbers: 3 GB in all, most of it in the second cache, so by that
count some 60 ms. `make bench` measures it.

Frame: crop coordinates, x right, y down; pixel i of S stands at -1 + 2 i / (S - 1).
Shape letters: B batch, J joints, L limbs, G limbs of one brightness, S image side, P = S^2 pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfpose.method.skeleton import Layout

__all__ = ["SIDE_BRIGHTNESS", "Profile", "SkeletonRenderer", "draw_skeletons", "limb_brightness"]

Profile = Literal["distance", "squared"]
"""Whether brightness falls with the distance (public code) or its square (printed form)."""

SIDE_BRIGHTNESS = 0.5
"""Brightness of left limbs that are told from right ones: half-way to the background."""

_MINIMUM_SQUARE = 1e-6
_AT_ONCE = 2**20
"""Distances that are computed together on a CPU, 4 MB."""


class SkeletonRenderer:
    """Draws poses of one layout, all with limbs of the same width and edge."""

    def __init__(
        self,
        layout: Layout,
        image_size: int,
        *,
        sigma: float = 0.2,
        profile: Profile = "distance",
        side_brightness: float = 1.0,
    ) -> None:
        """Fix what is drawn and how.

        Args:
            layout: joints and limbs.
            image_size: S, pixels.
            sigma: width of a limb, square root of crop coordinates (see the module).
            profile: how brightness falls with the distance.
            side_brightness: brightness of the limbs on the layout's dim side, 0 to 1; the others
                have 1.
        """
        self.limbs = layout.limbs
        self.image_size = image_size
        self.sigma = sigma
        self.profile: Profile = profile
        self.brightness = limb_brightness(layout, side_brightness)
        self.draw: Callable[..., Tensor] = draw_skeletons
        """`draw_skeletons`, or a faster form of it for one device."""

    def __call__(self, joints_bj2: Tensor) -> Tensor:
        """Return images (B, 1, S, S) in [-1, 1] of joints (B, J, 2), crop coordinates."""
        return self.draw(
            joints_bj2,
            self.limbs,
            image_size=self.image_size,
            sigma=self.sigma,
            profile=self.profile,
            brightness=self.brightness,
        )


def limb_brightness(layout: Layout, side_brightness: float) -> tuple[float, ...]:
    """Return the brightness of each limb: `side_brightness` on the layout's dim side, else 1."""
    return tuple(side_brightness if child in layout.dim else 1.0 for child, _ in layout.limbs)


def draw_skeletons(
    joints_bj2: Tensor,
    limbs: Sequence[tuple[int, int]],
    *,
    image_size: int,
    sigma: float,
    profile: Profile,
    brightness: Sequence[float],
) -> Tensor:
    """Draw the limbs between joints.

    Args:
        joints_bj2: joints (B, J, 2), crop coordinates; float32 or float64. A pose with a NaN or
            an infinity has an image of NaN.
        limbs: the two joints of each limb.
        image_size: S, pixels.
        sigma: width of a limb, square root of crop coordinates (see the module).
        profile: how brightness falls with the distance.
        brightness: of each limb, in (0, 1].

    Returns:
        Images (B, 1, S, S), -1 far from every limb, nearly 1 on a limb of brightness 1.

    Raises:
        TypeError: the joints have another dtype.
    """
    if joints_bj2.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"joints must be float32 or float64 to be drawn, got {joints_bj2.dtype}")
    value_bss: Tensor = _NearestLimb.apply(  # type: ignore[no-untyped-call]
        joints_bj2, tuple(limbs), image_size, (sigma, profile, tuple(brightness))
    )
    # The minimum over limbs compares whole numbers: it hides what is not finite.
    one_b11 = 1.0 + (0.0 * joints_bj2.detach()).sum((1, 2)).view(-1, 1, 1)
    return (2.0 * value_bss - one_b11).unsqueeze(1)


class _NearestLimb(torch.autograd.Function):
    """Brightness of the brightest limb at each pixel (B, S, S), with its analytic gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        joints_bj2: Tensor,
        limbs: tuple[tuple[int, int], ...],
        image_size: int,
        style: tuple[float, Profile, tuple[float, ...]],
    ) -> Tensor:
        sigma, profile, brightness = style
        exponent_bss, limb_bss = joints_bj2.new_empty(0), torch.empty(0)
        for bright in sorted(set(brightness)):
            members = [i for i, other in enumerate(brightness) if other == bright]
            square_bss, nearest_bss = _nearest(joints_bj2, limbs, tuple(members), image_size)
            candidate_bss = _exponent(square_bss, sigma, profile) - math.log(bright)
            if not len(exponent_bss):
                exponent_bss, limb_bss = candidate_bss, nearest_bss
            else:
                limb_bss = torch.where(candidate_bss < exponent_bss, nearest_bss, limb_bss)
                exponent_bss = torch.minimum(exponent_bss, candidate_bss)
        value_bss = exponent_bss.neg_().exp_()
        ctx.save_for_backward(joints_bj2, limb_bss, value_bss)
        ctx.limbs, ctx.style = limbs, style
        return value_bss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_bss: Tensor) -> tuple[Tensor, None, None, None]:
        joints_bj2, limb_bss, value_bss = ctx.saved_tensors
        sigma, profile, _ = ctx.style
        ends_l2 = _ends(ctx.limbs, joints_bj2.device)
        start_bl2, unit_bl2, length_bl = _frames(joints_bj2, ends_l2)
        limb_bp = limb_bss.flatten(1).long()
        grid_s = _grid(limb_bss.shape[-1], joints_bj2)
        x_p, y_p = grid_s.repeat(len(grid_s)), grid_s.repeat_interleave(len(grid_s))

        # The pixel in the frame of its limb, a at zero; then its offset from the foot.
        cos_bl, sin_bl = unit_bl2.unbind(-1)
        cos_bp, sin_bp = cos_bl.gather(1, limb_bp), sin_bl.gather(1, limb_bp)
        u_bl, v_bl = _turn(start_bl2[..., 0], start_bl2[..., 1], cos_bl, -sin_bl)
        u_bp = (cos_bp * x_p).addcmul_(sin_bp, y_p).sub_(u_bl.gather(1, limb_bp))
        v_bp = (cos_bp * y_p).sub_(sin_bp.mul_(x_p)).sub_(v_bl.gather(1, limb_bp))
        inverse_bl = length_bl / length_bl.square().clamp(min=_MINIMUM_SQUARE)
        t_bp = (u_bp * inverse_bl.gather(1, limb_bp)).clamp_(0.0, 1.0)
        u_bp -= t_bp * length_bl.gather(1, limb_bp)

        # d value / d foot, where value = exp(-exponent): minus from exp, minus from m - foot.
        slope_bp = _slope(u_bp.square().addcmul_(v_bp, v_bp), sigma, profile)
        slope_bp *= (grad_bss * value_bss).flatten(1)
        sums_bl = [
            torch.zeros_like(length_bl).scatter_add_(1, limb_bp, part_bp)
            for part_bp in (u_bp.mul_(slope_bp), v_bp.mul_(slope_bp), t_bp * u_bp, t_bp * v_bp)
        ]
        both_bl2, end_bl2 = (
            torch.stack(_turn(u, v, cos_bl, sin_bl), dim=-1) for u, v in (sums_bl[:2], sums_bl[2:])
        )
        grad_bj2 = torch.zeros_like(joints_bj2)
        grad_bj2.index_add_(1, ends_l2[:, 0], both_bl2 - end_bl2)
        grad_bj2.index_add_(1, ends_l2[:, 1], end_bl2)
        return grad_bj2, None, None, None


def _grid(image_size: int, like: Tensor) -> Tensor:
    return torch.linspace(-1.0, 1.0, image_size, device=like.device, dtype=like.dtype)


@functools.cache
def _whole_numbers(values: tuple[int, ...], device: torch.device) -> Tensor:
    """Return them on the device; the step would wait for it if they were copied every time."""
    return torch.tensor(values, device=device)


def _ends(limbs: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    return _whole_numbers(tuple(joint for limb in limbs for joint in limb), device).view(-1, 2)


def _frames(joints_bj2: Tensor, ends_l2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first ends (B, L, 2), directions (B, L, 2) and lengths (B, L) of limbs."""
    start_bl2 = joints_bj2[:, ends_l2[:, 0]]
    along_bl2 = joints_bj2[:, ends_l2[:, 1]] - start_bl2
    length_bl = along_bl2.square().sum(-1).sqrt()
    no_length_bl = length_bl == 0.0  # any direction will do
    cos_bl, sin_bl = along_bl2.unbind(-1)
    unit_bl2 = torch.stack((cos_bl + no_length_bl, sin_bl), dim=-1)
    return start_bl2, unit_bl2 / (length_bl + no_length_bl).unsqueeze(-1), length_bl


def _turn(x: Tensor, y: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Return (x, y) turned by the angle that has this cosine and sine."""
    return x * cos - y * sin, x * sin + y * cos


def _nearest(
    joints_bj2: Tensor,
    limbs: tuple[tuple[int, int], ...],
    members: tuple[int, ...],
    image_size: int,
) -> tuple[Tensor, Tensor]:
    """Return the squared distance (B, S, S) of each pixel to the nearest of some limbs, and which.

    A few images at a time on a CPU, so that what is written is still in its cache when read.
    """
    batch, count = len(joints_bj2), len(members)
    whole = torch.int64 if joints_bj2.dtype == torch.float64 else torch.int32
    low_bits = (1 << (len(limbs) - 1).bit_length()) - 1
    grid_s = _grid(image_size, joints_bj2)
    member_g = _whole_numbers(members, joints_bj2.device)
    limb_g111 = member_g.to(whole).view(-1, 1, 1, 1)
    start_bg2, unit_bg2, length_bg = _frames(joints_bj2, _ends(limbs, joints_bj2.device)[member_g])
    middle_bg2 = start_bg2 + 0.5 * length_bg.unsqueeze(-1) * unit_bg2
    half_gb11 = 0.5 * length_bg.T[..., None, None]
    cos_gb1, sin_gb1 = unit_bg2.permute(2, 1, 0).unsqueeze(-1)
    x_gbs, y_gbs = grid_s - middle_bg2.permute(2, 1, 0).unsqueeze(-1)

    some = batch if joints_bj2.is_cuda else max(1, _AT_ONCE // (count * image_size**2))
    square_bss = joints_bj2.new_empty(batch, image_size, image_size)
    limb_bss = torch.empty_like(square_bss, dtype=torch.uint8)
    for start in range(0, batch, some):
        b = slice(start, start + some)
        u_gbss = (cos_gb1 * x_gbs)[:, b, None, :] + (sin_gb1 * y_gbs)[:, b, :, None]
        v_gbss = (cos_gb1 * y_gbs)[:, b, :, None] - (sin_gb1 * x_gbs)[:, b, None, :]
        u_gbss.abs_().sub_(half_gb11[:, b]).clamp_(min=0.0)
        v_gbss.square_().addcmul_(u_gbss, u_gbss)
        coded_bss = v_gbss.view(whole).bitwise_and_(~low_bits).bitwise_or_(limb_g111).amin(dim=0)
        square_bss[b], limb_bss[b] = coded_bss.view(joints_bj2.dtype), coded_bss & low_bits
    return square_bss, limb_bss


def _exponent(square_bss: Tensor, sigma: float, profile: Profile) -> Tensor:
    """Return d / sigma^2 or d^2 / sigma^2, in place of the squared distance."""
    square_bss += _MINIMUM_SQUARE
    if profile == "distance":
        square_bss.sqrt_()
    return square_bss.div_(sigma**2)


def _slope(square: Tensor, sigma: float, profile: Profile) -> Tensor:
    """Return the exponent's gradient by the offset m - foot, over that offset."""
    if profile == "distance":
        return square.add_(_MINIMUM_SQUARE).sqrt_().mul_(sigma**2).reciprocal_()
    return torch.full_like(square, 2.0 / sigma**2)
