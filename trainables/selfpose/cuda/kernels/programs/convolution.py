"""The GPU programs of `kernels.convolution`."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["gather_columns", "gather_rows", "meet_pixels", "spread_pixels"]


@triton.jit
def _under_kernel(
    thin_ptr,
    pixel,
    thin_rows,
    thin_columns,
    wide_rows,
    wide_columns,
    pixels,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRIDE: tl.constexpr,
    TAPS: tl.constexpr,
):
    """The thin values (pixels, TAPS) that each wide pixel meets; any value for taps too many."""
    tap = tl.arange(0, TAPS)
    tap = tl.where(tap < CHANNELS * ROWS * COLUMNS, tap, 0)
    channel, i, j = tap // (ROWS * COLUMNS), tap // COLUMNS % ROWS, tap % COLUMNS
    image, rest = pixel // (wide_rows * wide_columns), pixel % (wide_rows * wide_columns)
    row, column = rest // wide_columns * STRIDE, rest % wide_columns * STRIDE
    start = (image * CHANNELS * thin_rows + row) * thin_columns + column
    start = tl.where(pixel < pixels, start, 0)
    offset = (channel * thin_rows + i) * thin_columns + j
    return tl.load(thin_ptr + start[:, None] + offset[None, :])


@triton.jit
def spread_pixels(
    thin_ptr,
    weight_ptr,
    bias_ptr,
    wide_ptr,
    thin_rows,
    thin_columns,
    wide_rows,
    wide_columns,
    pixels,
    channels,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRIDE: tl.constexpr,
    TAPS: tl.constexpr,
    PIXELS: tl.constexpr,
    BLOCK: tl.constexpr,
    BIASED: tl.constexpr,
):
    """A block of channels of some wide pixels."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    thin = _under_kernel(
        thin_ptr,
        pixel,
        thin_rows,
        thin_columns,
        wide_rows,
        wide_columns,
        pixels,
        CHANNELS,
        ROWS,
        COLUMNS,
        STRIDE,
        TAPS,
    )
    tap = tl.arange(0, TAPS)
    known = (tap < CHANNELS * ROWS * COLUMNS)[:, None] & inside[None, :]
    weight = tl.load(weight_ptr + tap[:, None] * channels + channel[None, :], mask=known, other=0.0)
    wide = tl.dot(thin, weight, input_precision="ieee")
    if BIASED:
        wide += tl.load(bias_ptr + channel, mask=inside, other=0.0)[None, :]
    where = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    here = (pixel < pixels)[:, None] & inside[None, :]
    tl.store(wide_ptr + where, wide.to(wide_ptr.dtype.element_ty), mask=here)


@triton.jit
def gather_rows(
    wide_ptr,
    weight_ptr,
    across_ptr,
    thin_rows,
    wide_rows,
    wide_columns,
    pixels,
    channels,
    ROWS: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    ACROSS: tl.constexpr,
    FILLED: tl.constexpr,
    PIXELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums over channels and kernel rows, for some places in a thin row and a wide column."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    image, rest = pixel // (thin_rows * wide_columns), pixel % (thin_rows * wide_columns)
    row, x = rest // wide_columns + PADDING, rest % wide_columns
    across = tl.arange(0, FILLED)
    total = tl.zeros((PIXELS, FILLED), tl.float32)
    for i in range(ROWS):
        y = row - i
        here = (pixel < pixels) & (y >= 0)
        if STRIDE > 1:
            here = here & (y % STRIDE == 0)
            y = y // STRIDE
        here = here & (y < wide_rows)
        start = ((image.to(tl.int64) * wide_rows + y) * wide_columns + x) * channels
        for at in range(0, channels, BLOCK):
            channel = at + tl.arange(0, BLOCK)
            inside = channel < channels
            wide = tl.load(
                wide_ptr + start[:, None] + channel[None, :],
                mask=here[:, None] & inside[None, :],
                other=0.0,
            )
            weight = tl.load(
                weight_ptr + (i * channels + channel)[:, None] * ACROSS + across[None, :],
                mask=inside[:, None] & (across < ACROSS)[None, :],
                other=0.0,
            )
            total = tl.dot(wide, weight, total, input_precision="ieee")
    where = pixel.to(tl.int64)[:, None] * ACROSS + across[None, :]
    tl.store(across_ptr + where, total, mask=(pixel < pixels)[:, None] & (across < ACROSS)[None, :])


@triton.jit
def gather_columns(
    across_ptr,
    thin_ptr,
    thin_rows,
    thin_columns,
    wide_columns,
    values,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    VALUES: tl.constexpr,
):
    """Sums over kernel columns, for some thin values."""
    value = tl.program_id(0) * VALUES + tl.arange(0, VALUES)
    column, rest = value % thin_columns + PADDING, value // thin_columns
    row, rest = rest % thin_rows, rest // thin_rows
    channel, image = rest % CHANNELS, rest // CHANNELS
    start = (image * thin_rows + row).to(tl.int64) * wide_columns
    total = tl.zeros((VALUES,), tl.float32)
    for j in tl.static_range(COLUMNS):
        x = column - j
        here = (value < values) & (x >= 0)
        if STRIDE > 1:
            here = here & (x % STRIDE == 0)
            x = x // STRIDE
        where = (start + x) * (CHANNELS * COLUMNS) + channel * COLUMNS + j
        total += tl.load(across_ptr + where, mask=here & (x < wide_columns), other=0.0)
    tl.store(thin_ptr + value, total.to(thin_ptr.dtype.element_ty), mask=value < values)


@triton.jit
def meet_pixels(
    thin_ptr,
    wide_ptr,
    parts_ptr,
    thin_rows,
    thin_columns,
    wide_rows,
    wide_columns,
    pixels,
    channels,
    splits,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRIDE: tl.constexpr,
    TAPS: tl.constexpr,
    PIXELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient of every `splits`-th tile of pixels; a tap behind the kernel's is a bias's."""
    split = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    tap = tl.arange(0, TAPS)
    total = tl.zeros((TAPS, BLOCK), tl.float32)
    for tile in range(split, tl.cdiv(pixels, PIXELS), splits):
        pixel = tile * PIXELS + tl.arange(0, PIXELS)
        thin = _under_kernel(
            thin_ptr,
            pixel,
            thin_rows,
            thin_columns,
            wide_rows,
            wide_columns,
            pixels,
            CHANNELS,
            ROWS,
            COLUMNS,
            STRIDE,
            TAPS,
        )
        one = tl.full((1, 1), 1.0, tl.float32).to(thin.dtype)
        thin = tl.where((tap == CHANNELS * ROWS * COLUMNS)[None, :], one, thin)
        where = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
        here = (pixel < pixels)[:, None] & inside[None, :]
        wide = tl.load(wide_ptr + where, mask=here, other=0.0)
        total = tl.dot(tl.trans(thin), wide, total, input_precision="ieee")
    where = (split * TAPS + tap)[:, None] * channels + channel[None, :]
    tl.store(parts_ptr + where, total, mask=(tap >= 0)[:, None] & inside[None, :])
