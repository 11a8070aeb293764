"""The differentiable skeleton renderer beta: 2D joints become an image of the limbs.

Per pixel m and limb (a, b): t = clamp(<m-a, b-a> / max(|b-a|^2, 1e-6), 0, 1), the foot of m on
the limb is a + t (b-a), its distance d = sqrt(|m - foot|^2 + 1e-6), and the image is
max over limbs of brightness exp(-d / sigma^2), scaled to [-1, 1].

Only the brightest limb of a pixel has a gradient there, and moving the foot along the limb does
not change the distance (to first order). So the limb is found without a graph, and the gradient
of that one distance is written out by hand: -(1-t) of it for a, -t for b.

Frame: crop coordinates, x right, y down; pixel i of S stands at -1 + 2 i / (S - 1).
Shape letters: B batch, J joints, L limbs, S image side, P = S^2 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfpose.skeleton import Layout

__all__ = ["SIDE_BRIGHTNESS", "Profile", "SkeletonRenderer", "draw_skeletons", "limb_brightness"]

Profile = Literal["distance", "squared"]
"""Whether brightness falls with the distance (public code) or its square (printed form)."""

SIDE_BRIGHTNESS = 0.5
"""Of left limbs that are told from right ones: as far from the right as from the background."""

_MINIMUM_SQUARE = 1e-6


class SkeletonRenderer:
    """Draws poses of one layout with one pen."""

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
            sigma: width of the pen, square root of crop coordinates (see the module).
            profile: how brightness falls with the distance.
            side_brightness: brightness of the limbs on the left side, 0 to 1; the others have 1.
        """
        self.limbs = layout.limbs
        self.image_size = image_size
        self.sigma = sigma
        self.profile: Profile = profile
        self.brightness = limb_brightness(layout, side_brightness)

    def __call__(self, joints_bj2: Tensor) -> Tensor:
        """Return images (B, 1, S, S) in [-1, 1] of joints (B, J, 2), crop coordinates."""
        return draw_skeletons(
            joints_bj2,
            self.limbs,
            image_size=self.image_size,
            sigma=self.sigma,
            profile=self.profile,
            brightness=self.brightness,
        )


def limb_brightness(layout: Layout, side_brightness: float) -> tuple[float, ...]:
    """Return the brightness of each limb: `side_brightness` on the left side, else 1."""
    return tuple(
        side_brightness if layout.joints[child].startswith("left") else 1.0
        for child, _ in layout.limbs
    )


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
        joints_bj2: joints (B, J, 2), crop coordinates; float32 or float64.
        limbs: the two joints of each limb.
        image_size: S, pixels.
        sigma: width of the pen.
        profile: how brightness falls with the distance.
        brightness: of each limb, in (0, 1].

    Returns:
        Images (B, 1, S, S), -1 far from every limb, nearly 1 on a limb of brightness 1.
    """
    value_bss: Tensor = _NearestLimb.apply(  # type: ignore[no-untyped-call]
        joints_bj2, tuple(limbs), image_size, (sigma, profile, tuple(brightness))
    )
    return (2.0 * value_bss - 1.0).unsqueeze(1)


class _NearestLimb(torch.autograd.Function):
    """Brightness of the brightest limb at each pixel (B, S, S), with its analytic gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        joints_bj2: Tensor,
        limbs: tuple[tuple[int, int], ...],
        image_size: int,
        pen: tuple[float, Profile, tuple[float, ...]],
    ) -> Tensor:
        sigma, profile, brightness = pen
        grid_s = _grid(image_size, joints_bj2)
        shape = (len(joints_bj2), image_size, image_size)
        exponent_bss = joints_bj2.new_full(shape, torch.inf)
        limb_bss = torch.zeros(shape, dtype=torch.int64, device=joints_bj2.device)
        log_brightness = torch.tensor(brightness, dtype=joints_bj2.dtype).log().tolist()
        for i, (a, b) in enumerate(limbs):
            square_bss = _square_distance(joints_bj2[:, a], joints_bj2[:, b], grid_s)
            candidate_bss = _exponent(square_bss, sigma, profile)
            if log_brightness[i] != 0.0:
                candidate_bss -= log_brightness[i]
            limb_bss.masked_fill_(candidate_bss < exponent_bss, i)
            torch.minimum(exponent_bss, candidate_bss, out=exponent_bss)
        value_bss = exponent_bss.neg_().exp_()
        ctx.save_for_backward(joints_bj2, limb_bss, value_bss)
        ctx.limbs, ctx.pen = limbs, pen
        return value_bss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_bss: Tensor) -> tuple[Tensor, None, None, None]:
        joints_bj2, limb_bss, value_bss = ctx.saved_tensors
        sigma, profile, _ = ctx.pen
        ends_l2 = torch.tensor(ctx.limbs, device=joints_bj2.device)
        batch, side, _ = limb_bss.shape
        limb_bp = limb_bss.view(batch, -1)
        start_bl2, end_bl2 = joints_bj2[:, ends_l2[:, 0]], joints_bj2[:, ends_l2[:, 1]]
        pick = limb_bp.unsqueeze(-1).expand(-1, -1, 2)
        start_bp2 = start_bl2.gather(1, pick)
        along_bp2 = (end_bl2 - start_bl2).gather(1, pick)
        grid_s = _grid(side, joints_bj2)
        pixels_p2 = torch.cartesian_prod(grid_s, grid_s).flip(-1)
        away_bp2 = pixels_p2 - start_bp2
        length_bp = along_bp2.square().sum(-1).clamp(min=_MINIMUM_SQUARE)
        t_bp1 = ((away_bp2 * along_bp2).sum(-1) / length_bp).clamp(0.0, 1.0).unsqueeze(-1)
        away_bp2 = away_bp2 - t_bp1 * along_bp2
        slope_bp1 = _slope(away_bp2.square().sum(-1, keepdim=True), sigma, profile)
        # d value / d foot, where value = exp(-exponent): minus from exp, minus from m - foot.
        grad_foot_bp2 = (grad_bss * value_bss).view(batch, -1, 1) * slope_bp1 * away_bp2
        grad_ends_bp4 = torch.cat(((1 - t_bp1) * grad_foot_bp2, t_bp1 * grad_foot_bp2), dim=-1)
        grad_bl4 = joints_bj2.new_zeros(batch, len(ctx.limbs), 4)
        grad_bl4.scatter_add_(1, limb_bp.unsqueeze(-1).expand(-1, -1, 4), grad_ends_bp4)
        grad_bj2 = torch.zeros_like(joints_bj2)
        grad_bj2.index_add_(1, ends_l2[:, 0], grad_bl4[..., :2])
        grad_bj2.index_add_(1, ends_l2[:, 1], grad_bl4[..., 2:])
        return grad_bj2, None, None, None


def _grid(image_size: int, like: Tensor) -> Tensor:
    return torch.linspace(-1.0, 1.0, image_size, device=like.device, dtype=like.dtype)


def _square_distance(start_b2: Tensor, end_b2: Tensor, grid_s: Tensor) -> Tensor:
    """Return the squared distance of each pixel to a limb (B, S, S)."""
    along_b2 = end_b2 - start_b2
    away_x_bs = grid_s - start_b2[:, :1]
    away_y_bs = grid_s - start_b2[:, 1:]
    step_b2 = along_b2 / along_b2.square().sum(-1, keepdim=True).clamp(min=_MINIMUM_SQUARE)
    t_bss = (away_y_bs * step_b2[:, 1:]).unsqueeze(2) + (away_x_bs * step_b2[:, :1]).unsqueeze(1)
    t_bss.clamp_(0.0, 1.0)
    x_bss = away_x_bs.unsqueeze(1) - t_bss * along_b2[:, :1, None]
    y_bss = away_y_bs.unsqueeze(2) - t_bss.mul_(along_b2[:, 1:, None])
    return x_bss.square_().addcmul_(y_bss, y_bss)


def _exponent(square_bss: Tensor, sigma: float, profile: Profile) -> Tensor:
    """Return d / sigma^2 or d^2 / sigma^2, in place of the squared distance."""
    square_bss += _MINIMUM_SQUARE
    if profile == "distance":
        square_bss.sqrt_()
    return square_bss.div_(sigma**2)


def _slope(square: Tensor, sigma: float, profile: Profile) -> Tensor:
    """Return the exponent's gradient by the offset m - foot, over that offset."""
    if profile == "distance":
        return 1.0 / ((square + _MINIMUM_SQUARE).sqrt() * sigma**2)
    return torch.full_like(square, 2.0 / sigma**2)
