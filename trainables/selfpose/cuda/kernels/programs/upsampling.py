"""The GPU programs of `kernels.upsampling`."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["double", "gradient"]


@triton.jit
def _row_of(x_ptr, image, row, column, channel, height, width, channels, here):
    """Columns (COLUMNS, BLOCK) of one row of maps, in float32; both clamped to the edges."""
    row = tl.minimum(tl.maximum(row, 0), height - 1)
    column = tl.minimum(tl.maximum(column, 0), width - 1)
    where = ((image.to(tl.int64) * height + row) * width + column)[:, None] * channels
    return tl.load(x_ptr + where + channel[None, :], mask=here, other=0.0).to(tl.float32)


@triton.jit
def double(x_ptr, y_ptr, height, width, channels, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Four outputs of each input."""
    image, row = tl.program_id(0) // height, tl.program_id(0) % height
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    channel = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    here = (column < width)[:, None] & (channel < channels)[None, :]
    y_ptr += channel[None, :]
    for down in tl.static_range(2):
        near_row, far_row = row, row - 1 + 2 * down
        for right in tl.static_range(2):
            far_column = column - 1 + 2 * right
            y = 0.5625 * _row_of(
                x_ptr, image, near_row, column, channel, height, width, channels, here
            )
            y += 0.1875 * _row_of(
                x_ptr, image, far_row, column, channel, height, width, channels, here
            )
            y += 0.1875 * _row_of(
                x_ptr, image, near_row, far_column, channel, height, width, channels, here
            )
            y += 0.0625 * _row_of(
                x_ptr, image, far_row, far_column, channel, height, width, channels, here
            )
            out_row = image.to(tl.int64) * 2 * height + 2 * row + down
            where = (out_row * 2 * width + 2 * column + right)[:, None] * channels
            tl.store(y_ptr + where, y.to(y_ptr.dtype.element_ty), mask=here)


@triton.jit
def _weight(offset: tl.constexpr, at, side):
    """What output 2 at + offset, offset -1 to 2, takes of input `at`."""
    if offset == -1:
        weight = tl.where(at > 0, 0.25, 0.0)
    elif offset == 0:
        weight = tl.where(at > 0, 0.75, 1.0)
    elif offset == 1:
        weight = tl.where(at < side - 1, 0.75, 1.0)
    else:
        weight = tl.where(at < side - 1, 0.25, 0.0)
    return weight


@triton.jit
def gradient(
    into_ptr, grad_ptr, height, width, channels, COLUMNS: tl.constexpr, BLOCK: tl.constexpr
):
    """The gradient of each input, of the up to 16 outputs that take of it."""
    image, row = tl.program_id(0) // height, tl.program_id(0) % height
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    channel = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    here = (column < width)[:, None] & (channel < channels)[None, :]
    total = tl.zeros((COLUMNS, BLOCK), tl.float32)
    for down in tl.static_range(-1, 3):
        of_row = _weight(down, row, height)
        for right in tl.static_range(-1, 3):
            weight = of_row * _weight(right, column, width)
            grad = _row_of(
                grad_ptr,
                image,
                2 * row + down,
                2 * column + right,
                channel,
                2 * height,
                2 * width,
                channels,
                here,
            )
            total += weight[:, None] * grad
    where = ((image.to(tl.int64) * height + row) * width + column)[:, None] * channels
    into_ptr += channel[None, :]
    tl.store(into_ptr + where, total.to(into_ptr.dtype.element_ty), mask=here)
