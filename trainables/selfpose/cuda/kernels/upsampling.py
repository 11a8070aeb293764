"""Doubling the side of maps, bilinear, with its gradient.

As torch's `interpolate(scale_factor=2, mode="bilinear", align_corners=False)`: on each axis output
2i is 1/4 of input i-1 and 3/4 of i, output 2i+1 is 3/4 of i and 1/4 of i+1, and an input that is
not there is the edge's. Both passes read each value once from memory, then from the cache, and
write it once, 5/4 of the larger maps' bytes over bandwidth; sums are float32.

Memory: (B, S, S, C), channels together.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfpose.cuda.kernels.programs import upsampling as programs

__all__ = ["double_side"]

_TILE = 1024
"""Inputs, each with its four outputs, that a program holds at a time."""


def double_side(x_bcss: Tensor) -> Tensor:
    """Return maps (B, C, 2S, 2S) of maps (B, C, S, S), channels together in memory."""
    return _DoubleSide.apply(x_bcss)  # type: ignore[no-untyped-call]


class _DoubleSide(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_bcss: Tensor) -> Tensor:
        x_bcss = x_bcss.contiguous(memory_format=torch.channels_last)
        height, width = x_bcss.shape[2:]
        y_bcss = _empty_maps(x_bcss, 2 * height, 2 * width)
        _launch(programs.double, x_bcss, y_bcss)
        return y_bcss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_bcss: Tensor) -> Tensor:
        grad_bcss = grad_bcss.contiguous(memory_format=torch.channels_last)
        height, width = grad_bcss.shape[2:]
        into_bcss = _empty_maps(grad_bcss, height // 2, width // 2)
        _launch(programs.gradient, into_bcss, grad_bcss)
        return into_bcss


def _empty_maps(like_bcss: Tensor, height: int, width: int) -> Tensor:
    return torch.empty(
        (*like_bcss.shape[:2], height, width),
        dtype=like_bcss.dtype,
        device=like_bcss.device,
        memory_format=torch.channels_last,
    )


def _launch(kernel: Any, small_bcss: Tensor, large_bcss: Tensor) -> None:
    """Run a kernel for each pixel of the small maps."""
    images, channels, height, width = small_bcss.shape
    block = min(64, triton.next_power_of_2(channels))
    columns = min(_TILE // block, triton.next_power_of_2(width))
    grid = (images * height, triton.cdiv(width, columns), triton.cdiv(channels, block))
    kernel[grid](small_bcss, large_bcss, height, width, channels, columns, block)
