"""The GPU programs of `kernels.normalisation`: sums, then values; or both, for small images."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["apply", "gradient", "gradient_sums", "held", "held_gradient", "moments", "sums"]


@triton.jit
def sums(x_ptr, parts_ptr, pixels, channels, splits, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Sums of a channel's differences from its first value and of their squares, of some pixels."""
    split, group = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    x_ptr += group.to(tl.int64) * pixels * channels
    first_value = tl.load(x_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    share = tl.cdiv(pixels, splits)
    start = split * share
    end = tl.minimum(start + share, pixels)
    first = tl.zeros((ROWS, BLOCK), tl.float32)
    second = tl.zeros((ROWS, BLOCK), tl.float32)
    for at in range(start, end, ROWS):
        row = at + tl.arange(0, ROWS)
        here = (row < end)[:, None] & inside[None, :]
        where = row.to(tl.int64)[:, None] * channels + channel[None, :]
        x = tl.load(x_ptr + where, mask=here, other=0.0).to(tl.float32)
        x = tl.where(here, x - first_value[None, :], 0.0)
        first += x
        second += x * x
    parts_ptr += (group * splits + split) * 2 * channels
    tl.store(parts_ptr + channel, tl.sum(first, axis=0), mask=inside)
    tl.store(parts_ptr + channels + channel, tl.sum(second, axis=0), mask=inside)


@triton.jit
def moments(
    x_ptr,
    parts_ptr,
    moments_ptr,
    running_mean_ptr,
    running_variance_ptr,
    momentum,
    eps,
    pixels,
    channels,
    splits,
    AT_ONCE: tl.constexpr,
    BLOCK: tl.constexpr,
    RUNNING: tl.constexpr,
):
    """Add up the sums; write mean and 1 / deviation, and move the running statistics."""
    group = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    parts_ptr += group * splits * 2 * channels
    first = tl.zeros((AT_ONCE, BLOCK), tl.float32)
    second = tl.zeros((AT_ONCE, BLOCK), tl.float32)
    for at in range(0, splits, AT_ONCE):
        split = at + tl.arange(0, AT_ONCE)
        here = (split < splits)[:, None] & inside[None, :]
        where = split[:, None] * 2 * channels + channel[None, :]
        first += tl.load(parts_ptr + where, mask=here, other=0.0)
        second += tl.load(parts_ptr + channels + where, mask=here, other=0.0)
    x_ptr += group.to(tl.int64) * pixels * channels
    first_value = tl.load(x_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    moved = tl.sum(first, axis=0) / pixels
    variance = tl.maximum(tl.sum(second, axis=0) / pixels - moved * moved, 0.0)
    mean = first_value + moved
    moments_ptr += group * 2 * channels
    tl.store(moments_ptr + channel, mean, mask=inside)
    tl.store(moments_ptr + channels + channel, 1.0 / tl.sqrt(variance + eps), mask=inside)
    if RUNNING:
        old_mean = tl.load(running_mean_ptr + channel, mask=inside, other=0.0)
        old_variance = tl.load(running_variance_ptr + channel, mask=inside, other=0.0)
        unbiased = variance * (pixels / (pixels - 1.0))
        new_mean = old_mean + momentum * (mean - old_mean)
        new_variance = old_variance + momentum * (unbiased - old_variance)
        tl.store(running_mean_ptr + channel, new_mean, mask=inside)
        tl.store(running_variance_ptr + channel, new_variance, mask=inside)


@triton.jit
def _of_group(moments_ptr, weight_ptr, bias_ptr, group, channel, channels, AFFINE: tl.constexpr):
    """Mean, 1 / deviation, weight and bias of a block of channels, each (1, BLOCK)."""
    inside = channel < channels
    moments_ptr += group * 2 * channels
    mean = tl.load(moments_ptr + channel, mask=inside, other=0.0)
    inverse = tl.load(moments_ptr + channels + channel, mask=inside, other=0.0)
    if AFFINE:
        weight = tl.load(weight_ptr + channel, mask=inside, other=0.0)
        bias = tl.load(bias_ptr + channel, mask=inside, other=0.0)
    else:
        weight = tl.full(mean.shape, 1.0, tl.float32)
        bias = tl.zeros(mean.shape, tl.float32)
    return mean[None, :], inverse[None, :], weight[None, :], bias[None, :]


@triton.jit
def apply(
    x_ptr,
    moments_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    slope,
    pixels,
    channels,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    AFFINE: tl.constexpr,
):
    """Normalise and activate."""
    group = tl.program_id(2)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here = (row < pixels)[:, None] & (channel < channels)[None, :]
    where = (group.to(tl.int64) * pixels + row)[:, None] * channels + channel[None, :]
    mean, inverse, weight, bias = _of_group(
        moments_ptr, weight_ptr, bias_ptr, group, channel, channels, AFFINE
    )
    x = tl.load(x_ptr + where, mask=here, other=0.0).to(tl.float32)
    z = (x - mean) * inverse * weight + bias
    y = tl.where(z > 0, z, slope * z)
    tl.store(y_ptr + where, y.to(y_ptr.dtype.element_ty), mask=here)


@triton.jit
def _before_activation(x_ptr, grad_ptr, here, mean, inverse, weight, bias, slope):
    """The normalised x and the gradient of z, of x and y's gradient."""
    x = tl.load(x_ptr, mask=here, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr, mask=here, other=0.0).to(tl.float32)
    normal = (x - mean) * inverse
    return normal, tl.where(normal * weight + bias > 0, grad, slope * grad)


@triton.jit
def gradient_sums(
    x_ptr,
    grad_ptr,
    moments_ptr,
    weight_ptr,
    bias_ptr,
    parts_ptr,
    slope,
    pixels,
    channels,
    splits,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    AFFINE: tl.constexpr,
):
    """Sums of z's gradient and of its products with the normalised x, of some pixels."""
    split, group = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    mean, inverse, weight, bias = _of_group(
        moments_ptr, weight_ptr, bias_ptr, group, channel, channels, AFFINE
    )
    offset = group.to(tl.int64) * pixels * channels
    share = tl.cdiv(pixels, splits)
    start = split * share
    end = tl.minimum(start + share, pixels)
    first = tl.zeros((ROWS, BLOCK), tl.float32)
    second = tl.zeros((ROWS, BLOCK), tl.float32)
    for at in range(start, end, ROWS):
        row = at + tl.arange(0, ROWS)
        here = (row < end)[:, None] & inside[None, :]
        where = offset + row.to(tl.int64)[:, None] * channels + channel[None, :]
        normal, grad = _before_activation(
            x_ptr + where, grad_ptr + where, here, mean, inverse, weight, bias, slope
        )
        first += grad
        second += grad * normal
    parts_ptr += (group * splits + split) * 2 * channels
    tl.store(parts_ptr + channel, tl.sum(first, axis=0), mask=inside)
    tl.store(parts_ptr + channels + channel, tl.sum(second, axis=0), mask=inside)


@triton.jit
def gradient(
    x_ptr,
    grad_ptr,
    moments_ptr,
    weight_ptr,
    bias_ptr,
    parts_ptr,
    into_ptr,
    slope,
    pixels,
    channels,
    splits,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    AFFINE: tl.constexpr,
):
    """The gradient of x, of y's and the sums."""
    group = tl.program_id(2)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here = (row < pixels)[:, None] & inside[None, :]
    where = (group.to(tl.int64) * pixels + row)[:, None] * channels + channel[None, :]
    mean, inverse, weight, bias = _of_group(
        moments_ptr, weight_ptr, bias_ptr, group, channel, channels, AFFINE
    )
    first = tl.zeros((BLOCK,), tl.float32)
    second = tl.zeros((BLOCK,), tl.float32)
    parts_ptr += group * splits * 2 * channels + channel
    for split in range(splits):
        first += tl.load(parts_ptr + split * 2 * channels, mask=inside, other=0.0)
        second += tl.load(parts_ptr + (split * 2 + 1) * channels, mask=inside, other=0.0)
    first, second = first[None, :] / pixels, second[None, :] / pixels
    normal, grad = _before_activation(
        x_ptr + where, grad_ptr + where, here, mean, inverse, weight, bias, slope
    )
    into = weight * inverse * (grad - first - normal * second)
    tl.store(into_ptr + where, into.to(into_ptr.dtype.element_ty), mask=here)


@triton.jit
def held(
    x_ptr,
    moments_ptr,
    y_ptr,
    slope,
    eps,
    pixels,
    channels,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Normalise and activate a block of channels of one image; keep mean and 1 / deviation."""
    group = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    row = tl.arange(0, ROWS)
    here = (row < pixels)[:, None] & inside[None, :]
    where = (group.to(tl.int64) * pixels + row)[:, None] * channels + channel[None, :]
    x = tl.load(x_ptr + where, mask=here, other=0.0).to(tl.float32)
    mean = tl.sum(x, axis=0) / pixels
    x = tl.where(here, x - mean[None, :], 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / pixels + eps)
    moments_ptr += group * 2 * channels
    tl.store(moments_ptr + channel, mean, mask=inside)
    tl.store(moments_ptr + channels + channel, inverse, mask=inside)
    z = x * inverse[None, :]
    tl.store(y_ptr + where, tl.where(z > 0, z, slope * z).to(y_ptr.dtype.element_ty), mask=here)


@triton.jit
def held_gradient(
    x_ptr,
    grad_ptr,
    moments_ptr,
    into_ptr,
    slope,
    pixels,
    channels,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient of a block of channels of one image."""
    group = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    row = tl.arange(0, ROWS)
    here = (row < pixels)[:, None] & inside[None, :]
    where = (group.to(tl.int64) * pixels + row)[:, None] * channels + channel[None, :]
    moments_ptr += group * 2 * channels
    mean = tl.load(moments_ptr + channel, mask=inside, other=0.0)[None, :]
    inverse = tl.load(moments_ptr + channels + channel, mask=inside, other=0.0)[None, :]
    normal, grad = _before_activation(
        x_ptr + where, grad_ptr + where, here, mean, inverse, 1.0, 0.0, slope
    )
    first = tl.sum(grad, axis=0)[None, :] / pixels
    second = tl.sum(grad * normal, axis=0)[None, :] / pixels
    into = inverse * (grad - first - normal * second)
    tl.store(into_ptr + where, into.to(into_ptr.dtype.element_ty), mask=here)
