"""The GPU programs of `kernels.drawing`."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["draw_tile", "frame_limbs", "move_joints", "sum_tile"]

_MINIMUM_SQUARE = tl.constexpr(1e-6)
FRAME = tl.constexpr(8)
"""Numbers kept of a limb: direction (2), first end in its frame (2), length, 1 / length, log of its
brightness, and 0 if all joints are finite."""


@triton.jit
def _either(one, other):
    return one | other


@triton.jit
def _add_four(a, b, c, d, e, f, g, h):
    return a + e, b + f, c + g, d + h


@triton.jit
def frame_limbs(joints_ptr, limbs_ptr, logs_ptr, frames_ptr, joints, count, LIMBS: tl.constexpr):
    """The frames of an image's limbs."""
    image = tl.program_id(0)
    limb = tl.arange(0, LIMBS)
    known = limb < count
    start_ptr = joints_ptr + 2 * (
        image * joints + tl.load(limbs_ptr + 2 * limb, mask=known, other=0)
    )
    end_ptr = joints_ptr + 2 * (
        image * joints + tl.load(limbs_ptr + 2 * limb + 1, mask=known, other=0)
    )
    start_x, start_y = tl.load(start_ptr), tl.load(start_ptr + 1)
    along_x, along_y = tl.load(end_ptr) - start_x, tl.load(end_ptr + 1) - start_y
    length = tl.sqrt(along_x * along_x + along_y * along_y)
    no_length = (length == 0.0).to(tl.float32)  # any direction will do
    cos = (along_x + no_length) / (length + no_length)
    sin = along_y / (length + no_length)
    finite = tl.where(known, 0.0 * (start_x + start_y + along_x + along_y), 0.0)
    frame_ptr = frames_ptr + (image * count + limb) * FRAME
    tl.store(frame_ptr, cos, mask=known)
    tl.store(frame_ptr + 1, sin, mask=known)
    tl.store(frame_ptr + 2, cos * start_x + sin * start_y, mask=known)
    tl.store(frame_ptr + 3, cos * start_y - sin * start_x, mask=known)
    tl.store(frame_ptr + 4, length, mask=known)
    tl.store(frame_ptr + 5, length / tl.maximum(length * length, _MINIMUM_SQUARE), mask=known)
    tl.store(frame_ptr + 6, tl.load(logs_ptr + limb, mask=known, other=0.0), mask=known)
    tl.store(frame_ptr + 7, tl.sum(finite) + tl.zeros((LIMBS,), tl.float32), mask=known)


@triton.jit
def draw_tile(
    frames_ptr,
    image_ptr,
    nearest_ptr,
    present_ptr,
    sharpness,
    step,
    SIDE: tl.constexpr,
    BESIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TILES: tl.constexpr,
    COUNT: tl.constexpr,
    LAST: tl.constexpr,
    LOW_BITS: tl.constexpr,
    SQUARED: tl.constexpr,
):
    """Draw a tile."""
    tile, image = tl.program_id(0), tl.program_id(1)
    row = tile // BESIDE * ROWS + tl.arange(0, ROWS)
    column = tile % BESIDE * COLUMNS + tl.arange(0, COLUMNS)
    x, y = column * step - 1.0, row * step - 1.0
    exponent = tl.full((ROWS, COLUMNS), float("inf"), tl.float32)
    nearest = tl.zeros((ROWS, COLUMNS), tl.int32)
    coded = tl.full((ROWS, COLUMNS), 0x7FFFFFFF, tl.int32)
    frames_ptr += image * COUNT * FRAME
    for i in tl.static_range(COUNT):
        cos, sin = tl.load(frames_ptr + i * FRAME), tl.load(frames_ptr + i * FRAME + 1)
        start_u = tl.load(frames_ptr + i * FRAME + 2)
        start_v = tl.load(frames_ptr + i * FRAME + 3)
        half = 0.5 * tl.load(frames_ptr + i * FRAME + 4)
        u = (sin * y - (start_u + half))[:, None] + (cos * x)[None, :]
        u = tl.maximum(tl.abs(u) - half, 0.0)
        v = (cos * y - start_v)[:, None] - (sin * x)[None, :]
        square = v * v + u * u
        # The lowest bits hold the limb, so that one minimum finds both.
        coded = tl.minimum(coded, (square.to(tl.int32, bitcast=True) & ~LOW_BITS) | i)
        if (LAST >> i) & 1:
            square = coded.to(tl.float32, bitcast=True) + _MINIMUM_SQUARE
            candidate = (square if SQUARED else tl.sqrt(square)) * sharpness
            candidate -= tl.load(frames_ptr + i * FRAME + 6)
            nearest = tl.where(candidate < exponent, coded & LOW_BITS, nearest)
            exponent = tl.minimum(candidate, exponent)
            coded = tl.full((ROWS, COLUMNS), 0x7FFFFFFF, tl.int32)
    one = 1.0 + tl.load(frames_ptr + 7)  # not if a joint is not finite
    inside = (row < SIDE)[:, None] & (column < SIDE)[None, :]
    where = image.to(tl.int64) * SIDE * SIDE + row[:, None] * SIDE + column[None, :]
    tl.store(image_ptr + where, 2.0 * tl.exp(-exponent) - one, mask=inside)
    tl.store(nearest_ptr + where, nearest.to(tl.uint8), mask=inside)
    bits = tl.where(inside, 1 << nearest, 0)
    tl.store(present_ptr + image * TILES + tile, tl.reduce(bits, None, _either))


@triton.jit
def sum_tile(
    grad_ptr,
    nearest_ptr,
    frames_ptr,
    present_ptr,
    sums_ptr,
    sharpness,
    step,
    SIDE: tl.constexpr,
    BESIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TILES: tl.constexpr,
    COUNT: tl.constexpr,
    SQUARED: tl.constexpr,
):
    """Sum each limb's gradient by its foot, in its frame, and its products with the place t."""
    tile, image = tl.program_id(0), tl.program_id(1)
    place = tl.arange(0, ROWS * COLUMNS)
    row = tile // BESIDE * ROWS + place // COLUMNS
    column = tile % BESIDE * COLUMNS + place % COLUMNS
    x, y = column * step - 1.0, row * step - 1.0
    inside = (row < SIDE) & (column < SIDE)
    where = image.to(tl.int64) * SIDE * SIDE + row * SIDE + column
    nearest = tl.load(nearest_ptr + where, mask=inside, other=0).to(tl.int32)
    grad = tl.load(grad_ptr + where, mask=inside, other=0.0)
    frame_ptr = frames_ptr + (image * COUNT + nearest) * FRAME
    cos, sin = tl.load(frame_ptr), tl.load(frame_ptr + 1)
    u = cos * x + sin * y - tl.load(frame_ptr + 2)
    v = cos * y - sin * x - tl.load(frame_ptr + 3)
    t = tl.minimum(tl.maximum(u * tl.load(frame_ptr + 5), 0.0), 1.0)
    u -= t * tl.load(frame_ptr + 4)
    square = u * u + v * v + _MINIMUM_SQUARE
    if SQUARED:
        exponent, slope = square * sharpness, 2.0 * sharpness
    else:
        distance = tl.sqrt(square)
        exponent, slope = distance * sharpness, sharpness / distance
    # d image / d foot, where image = 2 exp(-exponent) - 1: minus from exp, minus from m - foot.
    weight = 2.0 * grad * slope * tl.exp(tl.load(frame_ptr + 6) - exponent)
    of_u, of_v = u * weight, v * weight
    present = tl.load(present_ptr + image * TILES + tile)
    sums_ptr += (image * TILES + tile) * COUNT * 4
    for limb in range(COUNT):
        first, second, third, fourth = 0.0, 0.0, 0.0, 0.0
        if (present >> limb) & 1:
            own_u = tl.where(nearest == limb, of_u, 0.0)
            own_v = tl.where(nearest == limb, of_v, 0.0)
            first, second, third, fourth = tl.reduce(
                (own_u, own_v, t * own_u, t * own_v), 0, _add_four
            )
        tl.store(sums_ptr + 4 * limb, first)
        tl.store(sums_ptr + 4 * limb + 1, second)
        tl.store(sums_ptr + 4 * limb + 2, third)
        tl.store(sums_ptr + 4 * limb + 3, fourth)


@triton.jit
def move_joints(
    sums_ptr,
    frames_ptr,
    limbs_ptr,
    grad_ptr,
    count,
    joints,
    tiles,
    LIMBS: tl.constexpr,
    JOINTS: tl.constexpr,
):
    """Turn an image's sums out of the limbs' frames and give each joint those of its limbs."""
    image = tl.program_id(0)
    limb = tl.arange(0, LIMBS)
    known = limb < count
    start = tl.load(limbs_ptr + 2 * limb, mask=known, other=-1)
    end = tl.load(limbs_ptr + 2 * limb + 1, mask=known, other=-1)
    frame_ptr = frames_ptr + (image * count + limb) * FRAME
    cos = tl.load(frame_ptr, mask=known, other=0.0)
    sin = tl.load(frame_ptr + 1, mask=known, other=0.0)
    both_u = tl.zeros((LIMBS,), tl.float32)
    both_v = tl.zeros((LIMBS,), tl.float32)
    end_u = tl.zeros((LIMBS,), tl.float32)
    end_v = tl.zeros((LIMBS,), tl.float32)
    for tile in range(tiles):
        sum_ptr = sums_ptr + ((image * tiles + tile) * count + limb) * 4
        both_u += tl.load(sum_ptr, mask=known, other=0.0)
        both_v += tl.load(sum_ptr + 1, mask=known, other=0.0)
        end_u += tl.load(sum_ptr + 2, mask=known, other=0.0)
        end_v += tl.load(sum_ptr + 3, mask=known, other=0.0)
    start_u, start_v = both_u - end_u, both_v - end_v
    joint = tl.arange(0, JOINTS)
    starts = start[None, :] == joint[:, None]
    ends = end[None, :] == joint[:, None]
    start_x, start_y = start_u * cos - start_v * sin, start_u * sin + start_v * cos
    end_x, end_y = end_u * cos - end_v * sin, end_u * sin + end_v * cos
    x = tl.where(starts, start_x[None, :], 0.0) + tl.where(ends, end_x[None, :], 0.0)
    y = tl.where(starts, start_y[None, :], 0.0) + tl.where(ends, end_y[None, :], 0.0)
    grad_ptr += (image * joints + joint) * 2
    tl.store(grad_ptr, tl.sum(x, axis=1), mask=joint < joints)
    tl.store(grad_ptr + 1, tl.sum(y, axis=1), mask=joint < joints)
