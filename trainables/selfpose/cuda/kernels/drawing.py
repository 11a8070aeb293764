"""The skeleton renderer in two kernels forward and two backward.

The rules are those of `selfpose.method.renderer`.
Each program draws `_TILE` pixels of one image: it goes through the limbs with the nearest so far in
registers, so that of 25 million pairs of pixel and limb (B 96, S 128, 16 limbs) nothing is written
but the image and one byte a pixel, the nearest limb. A pair is some 10 operations: 8 us at the 30 T
operations/s of an H100 besides matrices; image and limbs are 8 MB, 3 us. The backward pass adds up
each tile's pixels by limb, for the limbs that it has, then the tiles of an image, always in the
same order.

Shape letters: B batch, J joints, L limbs, S image side in pixels.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfpose.cuda.kernels.programs import drawing as programs

__all__ = ["DrawingSettings", "draw"]

_TILE = 1024


class DrawingSettings(NamedTuple):
    """What is drawn and how, as `selfpose.method.renderer.draw_skeletons` takes it."""

    limbs: tuple[tuple[int, int], ...]
    image_size: int
    sigma: float
    squared: bool
    """Whether brightness falls with the square of the distance."""
    brightness: tuple[float, ...]


def draw(joints_bj2: Tensor, settings: DrawingSettings) -> Tensor:
    """Return images (B, 1, S, S), float32, of joints (B, J, 2), float32."""
    return _Draw.apply(joints_bj2, settings)  # type: ignore[no-untyped-call]


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, joints_bj2: Tensor, settings: DrawingSettings) -> Tensor:
        limbs_l2, logs_l = _tables(settings, joints_bj2.device)
        side, (batch, joints) = settings.image_size, joints_bj2.shape[:2]
        frames_bl = joints_bj2.new_empty(batch, len(limbs_l2), programs.FRAME.value)
        programs.frame_limbs[(batch,)](
            joints_bj2.contiguous(),
            limbs_l2,
            logs_l,
            frames_bl,
            joints,
            len(limbs_l2),
            triton.next_power_of_2(len(limbs_l2)),
        )
        tiles = _Tiles.of(side)
        image_b1ss = joints_bj2.new_empty(batch, 1, side, side)
        nearest_bss = torch.empty_like(image_b1ss, dtype=torch.uint8)
        present_bt = torch.empty((batch, tiles.number), dtype=torch.int32, device=logs_l.device)
        programs.draw_tile[(tiles.number, batch)](
            frames_bl,
            image_b1ss,
            nearest_bss,
            present_bt,
            1.0 / settings.sigma**2,
            2.0 / (side - 1),
            side,
            *tiles,
            len(limbs_l2),
            _last_of_each_level(settings),
            (1 << (len(limbs_l2) - 1).bit_length()) - 1,
            settings.squared,
        )
        ctx.save_for_backward(nearest_bss, frames_bl, present_bt, limbs_l2)
        ctx.settings, ctx.tiles, ctx.joints = settings, tiles, joints
        return image_b1ss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_b1ss: Tensor) -> tuple[Tensor, None]:
        nearest_bss, frames_bl, present_bt, limbs_l2 = ctx.saved_tensors
        settings: DrawingSettings = ctx.settings
        (batch, tiles), count = present_bt.shape, len(limbs_l2)
        sums_btl4 = frames_bl.new_empty(batch, tiles, count, 4)
        programs.sum_tile[(tiles, batch)](
            grad_b1ss.contiguous(),
            nearest_bss,
            frames_bl,
            present_bt,
            sums_btl4,
            1.0 / settings.sigma**2,
            2.0 / (settings.image_size - 1),
            settings.image_size,
            *ctx.tiles,
            count,
            settings.squared,
        )
        grad_bj2 = frames_bl.new_empty(batch, ctx.joints, 2)
        programs.move_joints[(batch,)](
            sums_btl4,
            frames_bl,
            limbs_l2,
            grad_bj2,
            count,
            ctx.joints,
            tiles,
            triton.next_power_of_2(count),
            triton.next_power_of_2(ctx.joints),
        )
        return grad_bj2, None


class _Tiles(NamedTuple):
    """How an image is cut: tiles beside each other, rows and columns of one."""

    beside: int
    rows: int
    columns: int
    number: int

    @classmethod
    def of(cls, side: int) -> _Tiles:
        columns = min(128, triton.next_power_of_2(side))
        rows = _TILE // columns
        beside = triton.cdiv(side, columns)
        return cls(beside, rows, columns, beside * triton.cdiv(side, rows))


def _order(settings: DrawingSettings) -> list[int]:
    """Return the limbs, equally bright ones together."""
    return sorted(range(len(settings.limbs)), key=lambda limb: settings.brightness[limb])


def _last_of_each_level(settings: DrawingSettings) -> int:
    """Return the places in that order before another brightness begins, as the bits of a word."""
    levels = [settings.brightness[limb] for limb in _order(settings)]
    return sum(1 << i for i in range(len(levels)) if levels[i + 1 : i + 2] != [levels[i]])


@functools.cache
def _tables(settings: DrawingSettings, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the ends (L, 2) and the logarithm of the brightness (L,) of the limbs in order."""
    order = _order(settings)
    with torch.inference_mode(False):  # else a first use under it would spoil later training
        return (
            torch.tensor([settings.limbs[i] for i in order], dtype=torch.int32, device=device),
            torch.tensor([math.log(settings.brightness[i]) for i in order], device=device),
        )
