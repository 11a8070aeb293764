"""Normalisation and the activation behind it in one operation, for instance and batch statistics.

    z = weight (x - mean) / sqrt(variance + eps) + bias        y = z if z > 0 else slope z

Both passes read everything twice and write it once: first the sums over the pixels of a channel,
then the values. The backward pass needs no y: x and the statistics tell the sign of z. In bytes of
one tensor, 3 forward and 5 backward, over bandwidth; torch's own takes 5 and 8 and, for instances,
brings the channels apart and together again.

Images of up to 32 x 32 pixels are read only once: a program holds all pixels of some channels.

Memory: x is (G, P, C) with the channels together: G groups that have their own statistics (images
for instances, 1 for a batch), P pixels in each. Sums are float32, of differences from a channel's
first value, so that a mean far from zero costs no digits; each block of pixels adds up its own,
always in the same order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfpose.cuda.kernels.programs import normalisation as programs

__all__ = ["WholeBatch", "normalise_and_activate"]

_TILE = 4096
"""Values that a program holds at a time."""
_PROGRAMS = 528
"""Least number of programs that share the sums, if the pixels suffice: four a multiprocessor."""
_HELD = 16_384
"""Values of an image that a program holds at once, if they are all of a block of channels."""
_WARPS = 8
_SPLITS_AT_ONCE = 32
_FOLDED = 16
"""Number of parts up to which the program that needs their sum adds them up itself."""


class WholeBatch(NamedTuple):
    """What a batch normalisation has, each (C,); its running statistics are changed in place."""

    weight_c: Tensor
    bias_c: Tensor
    mean_c: Tensor
    variance_c: Tensor
    momentum: float


def normalise_and_activate(
    x_bcss: Tensor,
    *,
    slope: float,
    eps: float,
    batch: WholeBatch | None = None,
) -> Tensor:
    """Normalise each channel, of each image or with `batch` of all images, then activate.

    Args:
        x_bcss: maps (B, C, S, S), float32 or a half precision.
        slope: of the leaky ReLU behind it, 0 for a ReLU.
        eps: added to the variance.
        batch: of a batch normalisation.

    Returns:
        Maps of the same shape and dtype, channels together in memory.
    """
    weight_c, bias_c = (None, None) if batch is None else batch[:2]
    return _NormaliseAndActivate.apply(  # type: ignore[no-untyped-call]
        x_bcss, weight_c, bias_c, batch, (slope, eps)
    )


class _NormaliseAndActivate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_bcss: Tensor,
        weight_c: Tensor | None,
        bias_c: Tensor | None,
        batch: WholeBatch | None,
        numbers: tuple[float, float],
    ) -> Tensor:
        slope, eps = numbers
        x_bcss = x_bcss.contiguous(memory_format=torch.channels_last)
        shape = _Shape.of(x_bcss, whole_batch=batch is not None)
        ctx.slope, ctx.shape = slope, shape
        if batch is None and shape.held:
            return _NormaliseAndActivate._hold(ctx, x_bcss, eps)
        parts = x_bcss.new_empty((shape.groups, shape.splits, 2, shape.channels), dtype=_SUM)
        programs.sums[shape.grid_of_sums](
            x_bcss, parts, shape.pixels, shape.channels, shape.splits, shape.rows, shape.block
        )
        moments = torch.empty_like(parts[:, 0])  # mean and 1 / deviation
        programs.moments[(shape.groups, shape.blocks)](
            x_bcss,
            parts,
            moments,
            moments if batch is None else batch.mean_c,
            moments if batch is None else batch.variance_c,
            0.0 if batch is None else batch.momentum,
            eps,
            shape.pixels,
            shape.channels,
            shape.splits,
            _SPLITS_AT_ONCE,
            shape.block,
            batch is not None,
        )
        y_bcss = torch.empty_like(x_bcss)
        programs.apply[shape.grid](
            x_bcss,
            moments,
            moments if weight_c is None else weight_c,
            moments if bias_c is None else bias_c,
            y_bcss,
            slope,
            shape.pixels,
            shape.channels,
            shape.rows,
            shape.block,
            weight_c is not None,
        )
        ctx.save_for_backward(x_bcss, moments, weight_c, bias_c)
        return y_bcss

    @staticmethod
    def _hold(ctx: Any, x_bcss: Tensor, eps: float) -> Tensor:
        shape: _Shape = ctx.shape
        assert shape.held is not None
        moments = x_bcss.new_empty((shape.groups, 2, shape.channels), dtype=_SUM)
        y_bcss = torch.empty_like(x_bcss)
        programs.held[shape.grid_of_held](
            x_bcss,
            moments,
            y_bcss,
            ctx.slope,
            eps,
            shape.pixels,
            shape.channels,
            *shape.held,
            num_warps=_WARPS,
        )
        ctx.save_for_backward(x_bcss, moments, None, None)
        return y_bcss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_bcss: Tensor) -> tuple[Tensor | None, ...]:
        x_bcss, moments, weight_c, bias_c = ctx.saved_tensors
        shape: _Shape = ctx.shape
        grad_bcss = grad_bcss.contiguous(memory_format=torch.channels_last)
        affine = weight_c is not None
        if not affine and shape.held:
            into_bcss = torch.empty_like(x_bcss)
            programs.held_gradient[shape.grid_of_held](
                x_bcss,
                grad_bcss,
                moments,
                into_bcss,
                ctx.slope,
                shape.pixels,
                shape.channels,
                *shape.held,
                num_warps=_WARPS,
            )
            return into_bcss, None, None, None, None
        weight, bias = (weight_c, bias_c) if affine else (moments, moments)
        parts = moments.new_empty((shape.groups, shape.splits, 2, shape.channels))
        programs.gradient_sums[shape.grid_of_sums](
            x_bcss,
            grad_bcss,
            moments,
            weight,
            bias,
            parts,
            ctx.slope,
            shape.pixels,
            shape.channels,
            shape.splits,
            shape.rows,
            shape.block,
            affine,
        )
        if affine or shape.splits > _FOLDED:
            parts = parts.sum(dim=1, keepdim=True)
        into_bcss = torch.empty_like(x_bcss)
        programs.gradient[shape.grid](
            x_bcss,
            grad_bcss,
            moments,
            weight,
            bias,
            parts,
            into_bcss,
            ctx.slope,
            shape.pixels,
            shape.channels,
            parts.shape[1],
            shape.rows,
            shape.block,
            affine,
        )
        of_bias, of_weight = parts[0, 0] if affine else (None, None)
        return into_bcss, of_weight, of_bias, None, None


_SUM = torch.float32


class _Shape(NamedTuple):
    """How a tensor is cut: G groups of P pixels; `rows` pixels and `block` channels at a time."""

    groups: int
    pixels: int
    channels: int
    splits: int
    """Programs that share the sums of a group's block of channels."""
    rows: int
    block: int

    @classmethod
    def of(cls, x_bcss: Tensor, *, whole_batch: bool) -> _Shape:
        images, channels = x_bcss.shape[:2]
        groups = 1 if whole_batch else images
        pixels = x_bcss.numel() // groups // channels
        block = min(64, triton.next_power_of_2(channels))
        rows = min(_TILE // block, triton.next_power_of_2(pixels))
        wanted = triton.cdiv(_PROGRAMS, groups * triton.cdiv(channels, block))
        splits = min(wanted, triton.cdiv(pixels, rows))
        return cls(groups, pixels, channels, splits, rows, block)

    @property
    def blocks(self) -> int:
        return triton.cdiv(self.channels, self.block)

    @property
    def held(self) -> tuple[int, int] | None:
        """Pixels and channels that a program holds, if it can hold all pixels of a group."""
        rows = triton.next_power_of_2(self.pixels)
        block = min(64, triton.next_power_of_2(self.channels), _HELD // rows)
        return (rows, block) if block >= min(16, self.channels) else None

    @property
    def grid_of_held(self) -> tuple[int, int]:
        assert self.held is not None
        return self.groups, triton.cdiv(self.channels, self.held[1])

    @property
    def grid_of_sums(self) -> tuple[int, int, int]:
        return self.splits, self.blocks, self.groups

    @property
    def grid(self) -> tuple[int, int, int]:
        return triton.cdiv(self.pixels, self.rows), self.blocks, self.groups
