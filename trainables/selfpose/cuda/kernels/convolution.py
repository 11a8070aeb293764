"""Convolutions between a thin image, of one to four channels, and wide maps.

The first layers read such an image and the last ones write one. Matrix units take at least 8
channels, so cuDNN does these on the side: the first layer of Omega, a 7x7 from one channel, takes
it 0.8 ms at B 96, S 128 on an H100, where writing the result takes 35 us. Here the pixels under a
kernel are what a matrix product sums over, gathered from the thin image, which is in the cache.

A wide pixel (y, x) meets the thin pixels (y stride + i - padding, x stride + j - padding), kernel
rows i and columns j. Three operations are each other's gradients:
    spread    wide[o, y, x] = sum over c, i, j of thin[c, ..] kernel[o, c, i, j]
    gather    thin[c, ..] = sum over o, i, j of wide[o, y, x] kernel[o, c, i, j]
    meet      kernel[o, c, i, j] = sum over pixels of thin[c, ..] wide[o, y, x]
A layer that reads a thin image spreads; one that writes one gathers, with its kernel turned around.

`gather` takes two kernels, the columns of a wide row being what its product runs over:
    across[y, x', c, j] = sum over o, i of wide[o, .., x'] kernel[o, c, i, j]
    thin[c, y, x] = sum over j of across[y, .., c, j]

Memory: thin (B, C, S, S), with its padding in it where it is read; wide (B, S, S, O), channels
together; sums float32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from selfpose.cuda.kernels.programs import convolution as programs

__all__ = ["convolve_from_thin", "convolve_to_thin"]

_PIXELS = 64
"""Pixels that a program holds at a time."""
_VALUES = 1024
"""Thin values that a program adds up."""
_PROGRAMS = 528
"""Number of programs that share the sums over all pixels: four for each multiprocessor."""


def convolve_from_thin(
    thin: Tensor, kernel_ocij: Tensor, bias_o: Tensor | None, *, stride: int, padding: int
) -> Tensor:
    """Return the convolution (B, O, S, S) of a thin image (B, C, S, S), C at most 4."""
    return _FromThin.apply(  # type: ignore[no-untyped-call]
        thin, kernel_ocij.to(thin.dtype), bias_o, (stride, padding)
    )


def convolve_to_thin(wide: Tensor, kernel_coij: Tensor, *, padding: int) -> Tensor:
    """Return the convolution (B, C, S, S), C at most 4, of wide maps (B, O, S, S); stride 1."""
    kernel_ocij = kernel_coij.to(wide.dtype).transpose(0, 1).flip(2, 3)
    return _ToThin.apply(  # type: ignore[no-untyped-call]
        wide, kernel_ocij, kernel_coij.shape[2] - 1 - padding
    )


class _FromThin(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        thin: Tensor,
        kernel_ocij: Tensor,
        bias_o: Tensor | None,
        step: tuple[int, int],
    ) -> Tensor:
        stride, padding = step
        padded = _pad(thin, padding)
        side = [(padded.shape[n] - kernel_ocij.shape[n]) // stride + 1 for n in (2, 3)]
        wide = _channels_last(thin, (len(thin), len(kernel_ocij), *side))
        _spread(padded, kernel_ocij, wide, stride, bias_o)
        ctx.save_for_backward(padded, kernel_ocij)
        ctx.step, ctx.shape = step, thin.shape
        return wide

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        padded, kernel_ocij = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        to_thin = to_kernel = to_bias = None
        if _wants(ctx, 0):
            to_thin = grad.new_empty(ctx.shape)
            _gather(grad, kernel_ocij, to_thin, ctx.step)
        wants_bias = ctx.needs_input_grad[2] and _wants(ctx, 2)
        if _wants(ctx, 1) or wants_bias:
            to_kernel, to_bias = _meet(padded, grad, kernel_ocij, ctx.step[0])
        return to_thin, to_kernel, to_bias if wants_bias else None, None


class _ToThin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, wide: Tensor, kernel_ocij: Tensor, padding: int) -> Tensor:
        wide = wide.contiguous(memory_format=torch.channels_last)
        side = [wide.shape[n] - 1 + kernel_ocij.shape[n] - 2 * padding for n in (2, 3)]
        thin = wide.new_empty((len(wide), kernel_ocij.shape[1], *side))
        _gather(wide, kernel_ocij, thin, (1, padding))
        ctx.save_for_backward(wide, kernel_ocij)
        ctx.padding = padding
        return thin

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wide, kernel_ocij = ctx.saved_tensors
        padded = _pad(grad, ctx.padding)
        to_wide = to_kernel = None
        if _wants(ctx, 0):
            to_wide = torch.empty_like(wide)
            _spread(padded, kernel_ocij, to_wide, 1, None)
        if _wants(ctx, 1):
            to_kernel, _ = _meet(padded, wide, kernel_ocij, 1)
        return to_wide, to_kernel, None


def _wants(ctx: Any, index: int) -> bool:
    """Return whether this backward pass goes on to an input: one for D's weights not to the image.

    As torch's own operations ask; `needs_input_grad` only says that some pass might.
    """
    node = ctx.next_functions[index][0]
    if node is None:
        return False
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # the input is a leaf, of which it cannot tell
        return True


def _pad(thin: Tensor, padding: int) -> Tensor:
    return functional.pad(thin, (padding,) * 4).contiguous()


def _channels_last(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _by_tap(kernel_ocij: Tensor) -> Tensor:
    """Return the kernel as (C * I * J, O)."""
    return kernel_ocij.flatten(1).T.contiguous()


def _block(channels: int) -> int:
    return min(64, max(16, triton.next_power_of_2(channels)))


def _filled(count: int) -> int:
    """Return what a matrix unit takes for so many products or results."""
    return max(16, triton.next_power_of_2(count))


def _spread(
    padded: Tensor, kernel_ocij: Tensor, wide: Tensor, stride: int, bias_o: Tensor | None
) -> None:
    channels, *taps = kernel_ocij.shape
    pixels, block = wide.numel() // channels, _block(channels)
    weights = _by_tap(kernel_ocij)
    programs.spread_pixels[(triton.cdiv(pixels, _PIXELS), triton.cdiv(channels, block))](
        padded,
        weights,
        weights if bias_o is None else bias_o,
        wide,
        *padded.shape[2:],
        *wide.shape[2:],
        pixels,
        channels,
        *taps,
        stride,
        _filled(len(weights)),
        _PIXELS,
        block,
        bias_o is not None,
    )


def _gather(wide: Tensor, kernel_ocij: Tensor, thin: Tensor, step: tuple[int, int]) -> None:
    """Put into the thin image what it gathers from wide maps."""
    channels, thin_channels, rows, columns = kernel_ocij.shape
    images, _, thin_rows, thin_columns = thin.shape
    wide_rows, wide_columns = wide.shape[2:]
    block, across_columns = _block(channels), thin_channels * columns
    weights = kernel_ocij.permute(2, 0, 1, 3).contiguous()  # (I, O, C * J)
    pixels = images * thin_rows * wide_columns
    across = torch.empty((pixels, across_columns), device=wide.device)
    programs.gather_rows[(triton.cdiv(pixels, _PIXELS),)](
        wide,
        weights,
        across,
        thin_rows,
        wide_rows,
        wide_columns,
        pixels,
        channels,
        rows,
        *step,
        across_columns,
        _filled(across_columns),
        _PIXELS,
        block,
    )
    values = thin.numel()
    programs.gather_columns[(triton.cdiv(values, _VALUES),)](
        across,
        thin,
        thin_rows,
        thin_columns,
        wide_columns,
        values,
        thin_channels,
        columns,
        *step,
        _VALUES,
    )


def _meet(padded: Tensor, wide: Tensor, kernel_ocij: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Return the gradients of the kernel and of a bias (O,), float32."""
    channels, *taps = kernel_ocij.shape
    count = kernel_ocij[0].numel()
    pixels, block = wide.numel() // channels, _block(channels)
    blocks, filled = triton.cdiv(channels, block), _filled(count + 1)
    splits = min(triton.cdiv(_PROGRAMS, blocks), triton.cdiv(pixels, _PIXELS))
    parts = torch.empty((splits, filled, channels), device=wide.device)
    programs.meet_pixels[(splits, blocks)](
        padded,
        wide,
        parts,
        *padded.shape[2:],
        *wide.shape[2:],
        pixels,
        channels,
        splits,
        *taps,
        stride,
        filled,
        _PIXELS,
        block,
    )
    sums = parts.sum(dim=0)
    return sums[:count].T.reshape(kernel_ocij.shape), sums[count]
