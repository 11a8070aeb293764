"""Similarity Procrustes alignment of many poses at once, and the mean shape it defines.

All computation is float64, whatever comes in. A rotation acts on row vectors from the right:
`aligned = scale * predicted @ rotation + shift`.

Shape letters:
    N poses, J joints

100,000 poses of 17 joints need some 45 M operations for covariance and alignment and 250 for each
rotation, 70 M in all: a millisecond at the rate of a core's matrices, beside 140 MB that are read
and written. In numpy every step goes through memory and 3x3 products are slow: 130 ms on one core
of an AMD EPYC, as `make bench` measures.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError

__all__ = ["Reflection", "procrustes_align", "procrustes_mean"]

Reflection = Literal["never", "best"]
"""Whether a pose may be mirrored: never (a proper rotation), or whenever that fits better."""

# Poses are aligned in blocks, so that the scratch memory does not grow with N (20 MB here); the
# speed is the same for blocks from 128 poses to all.
_BLOCK = 8192

_NEWTON_STEPS = 30
"""Largest number of Newton steps; 5 to 8 suffice unless the two largest roots are equal."""
_LEAST_UNIQUE = 3e-3
"""Least ratio of (s1 + s2) (s2 + s3) (s3 + s1) to (s1 + s2 + s3)^3, which is 0.3 at most, for which
a rotation is computed without a singular value decomposition; it keeps errors below 1e-10."""


def procrustes_align(
    predicted_nj3: NDArray[Any], truth_nj3: NDArray[Any], *, reflection: Reflection
) -> NDArray[np.float64]:
    """Scale, rotate and shift each predicted pose to fit its true pose best.

    Minimises, per pose, sum_j ‖scale * predicted_j R + shift - truth_j‖² with scale >= 0 and R a
    rotation (Umeyama 1991; how it is found: `_rotations`), or with `reflection="best"` a
    rotation or a mirrored one. Where R is not unique (joints on a line or in one point) every
    choice gives the same least squares.

    Args:
        predicted_nj3: poses, (N, J, 3), any length unit, any frame. A pose with all joints in one
            point fits best as the true pose's centre.
        truth_nj3: poses, (N, J, 3), any length unit, any frame.
        reflection: whether a mirror image may be taken.

    Returns:
        The aligned poses, (N, J, 3), in the unit and frame of `truth_nj3`. A pose that holds a
        NaN or an infinity aligns to infinity, so that every error made from it is infinite.

    Raises:
        ValueError: the shapes differ or are not (N, J, 3).
        BadInputError: a true pose is not finite.
    """
    _check_pair(predicted_nj3, truth_nj3)
    aligned_nj3 = np.empty(truth_nj3.shape, dtype=np.float64)
    for start in range(0, len(truth_nj3), _BLOCK):
        block = slice(start, start + _BLOCK)
        aligned_nj3[block] = _align_block(
            predicted_nj3[block].astype(np.float64),
            truth_nj3[block].astype(np.float64),
            reflection=reflection,
        )
    return aligned_nj3


def procrustes_mean(poses_nj3: NDArray[Any], *, iterations: int = 20) -> NDArray[np.float64]:
    """Return the generalised Procrustes mean: the one shape that fits all poses best.

    Each pose counts by its shape alone; where it stands, how it is turned and how large it is
    do not matter (Gower 1975). Proper rotations only.

    Args:
        poses_nj3: poses, (N, J, 3), N >= 1, any length unit.
        iterations: at most this many rounds of aligning and averaging; about 5 suffice.

    Returns:
        The mean shape, (J, 3), its centre at 0, turned like the first pose, in the unit of
        `poses_nj3` and as large as the mean pose.

    Raises:
        ValueError: there is no pose.
    """
    if not len(poses_nj3):
        raise ValueError("the mean shape of 0 poses is not defined; give at least one")
    centred_nj3 = poses_nj3 - poses_nj3.mean(axis=1, keepdims=True, dtype=np.float64)
    size_n = np.linalg.norm(centred_nj3, axis=(1, 2))
    shapes_nj3 = centred_nj3 / np.where(size_n > 0, size_n, 1.0)[:, None, None]
    mean_j3 = shapes_nj3[0]
    for _ in range(iterations):
        target_nj3 = np.broadcast_to(mean_j3, shapes_nj3.shape)
        update_j3 = procrustes_align(shapes_nj3, target_nj3, reflection="never").mean(axis=0)
        update_j3 /= max(float(np.linalg.norm(update_j3)), 1e-12)
        moved = float(np.linalg.norm(update_j3 - mean_j3))
        mean_j3 = update_j3
        if moved < 1e-6:
            break
    return np.asarray(mean_j3 * size_n.mean(), dtype=np.float64)


def _align_block(
    predicted_nj3: NDArray[np.float64], truth_nj3: NDArray[np.float64], *, reflection: Reflection
) -> NDArray[np.float64]:
    """Align a few poses; see `procrustes_align`."""
    largest_n11 = np.abs(predicted_nj3).max(axis=(1, 2), keepdims=True)
    finite_n = np.isfinite(largest_n11[:, 0, 0])
    if not finite_n.all():
        predicted_nj3 = np.where(finite_n[:, None, None], predicted_nj3, 0.0)
        largest_n11[~finite_n] = 0.0
    # Unit size first: squares of very large or small coordinates would leave float64's range.
    predicted_nj3 = predicted_nj3 / np.where(largest_n11 > 0, largest_n11, 1.0)
    predicted_nj3 -= _centres(predicted_nj3)
    shift_n13 = _centres(truth_nj3)
    centred_nj3 = truth_nj3 - shift_n13
    size_n11 = np.abs(centred_nj3).max(axis=(1, 2), keepdims=True)

    covariance_n33 = predicted_nj3.transpose(0, 2, 1) @ centred_nj3
    covariance_n33 /= np.where(size_n11 > 0, size_n11, 1.0)
    rotation_n33, fit_n = _rotations(covariance_n33, reflection)
    square_n = np.einsum("njk,njk->n", predicted_nj3, predicted_nj3)
    scale_n = fit_n * size_n11[:, 0, 0] / np.where(square_n > 0, square_n, 1.0)

    aligned_nj3 = predicted_nj3 @ (scale_n[:, None, None] * rotation_n33)
    aligned_nj3 += shift_n13
    aligned_nj3[~finite_n] = np.inf
    return np.asarray(aligned_nj3, dtype=np.float64)


def _centres(poses_nj3: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean joint of each pose (N, 1, 3)."""
    joints = poses_nj3.shape[1]
    return np.asarray(np.full((1, joints), 1.0 / joints) @ poses_nj3, dtype=np.float64)


def _rotations(
    covariance_n33: NDArray[np.float64], reflection: Reflection
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the rotations R (or mirrored ones) with the largest trace(R^T C).

    Markley's FOAM (1993) in matrix form. With C's singular values s1 >= s2 >= |s3|, s3 with the
    sign of det C, that trace is x = s1 + s2 + s3, the largest root of
    x^4 - 2 |C|^2 x^2 - 8 det(C) x + |C|^4 - 4 |cof C|^2, and
    R = ((k + |C|^2) C + x cof C - C C^T C) / z with k = (x^2 - |C|^2) / 2, z = k x - det C.
    z is (s1 + s2) (s2 + s3) (s3 + s1): where it is small the solution is nearly not unique, and a
    singular value decomposition is taken instead.

    Returns:
        The rotations (N, 3, 3) and traces (N,).
    """
    c_33n = np.array(np.moveaxis(covariance_n33, 0, -1), order="C")  # a copy, changed below
    cofactor_33n = _cofactors(c_33n)
    determinant_n = (c_33n[0] * cofactor_33n[0]).sum(axis=0)
    sign_n = np.where((determinant_n < 0) & (reflection == "best"), -1.0, 1.0)
    c_33n *= sign_n  # a mirrored rotation of C is a rotation of -C, mirrored in the centre
    determinant_n = determinant_n * sign_n
    square_n = np.square(c_33n).sum(axis=(0, 1))
    last_n = square_n**2 - 4.0 * np.square(cofactor_33n).sum(axis=(0, 1))
    trace_n = _largest_root(square_n, determinant_n, last_n)

    k_n = 0.5 * (trace_n**2 - square_n)
    z_n = k_n * trace_n - determinant_n
    unique_n = z_n > _LEAST_UNIQUE * trace_n**3
    cubed_n33 = covariance_n33 @ (covariance_n33.transpose(0, 2, 1) @ covariance_n33)
    rotation_33n = (k_n + square_n) * c_33n + trace_n * cofactor_33n
    rotation_33n -= sign_n * np.moveaxis(cubed_n33, 0, -1)
    rotation_33n *= sign_n / np.where(unique_n, z_n, 1.0)
    rotation_n33 = np.moveaxis(rotation_33n, -1, 0).copy()
    if not unique_n.all():
        rest = ~unique_n
        rotation_n33[rest], trace_n[rest] = _rotations_by_svd(covariance_n33[rest], reflection)
    return rotation_n33, trace_n


def _rotations_by_svd(
    covariance_n33: NDArray[np.float64], reflection: Reflection
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As `_rotations`, whatever the singular values."""
    left_n33, stretch_n3, right_n33 = np.linalg.svd(covariance_n33)
    if reflection == "never":
        sign_n = np.where(np.linalg.det(left_n33 @ right_n33) < 0, -1.0, 1.0)
        left_n33[:, :, 2] *= sign_n[:, None]
        stretch_n3[:, 2] *= sign_n
    return left_n33 @ right_n33, stretch_n3.sum(axis=1)


def _cofactors(matrix_33n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cofactors (3, 3, N): each row is the cross product of the other two."""
    first, second = matrix_33n[[1, 2, 0]], matrix_33n[[2, 0, 1]]
    ahead, behind = [1, 2, 0], [2, 0, 1]
    return first[:, ahead] * second[:, behind] - first[:, behind] * second[:, ahead]


def _largest_root(
    square_n: NDArray[np.float64], determinant_n: NDArray[np.float64], last_n: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the largest root of x^4 - 2 square x^2 - 8 determinant x + last, by Newton's rule.

    All roots are real and sqrt(3 square) is not below the largest, so each step comes nearer.
    """
    x_n = np.sqrt(3.0 * square_n)
    for _ in range(_NEWTON_STEPS):
        inner_n = x_n * x_n - 2.0 * square_n
        value_n = (inner_n * x_n - 8.0 * determinant_n) * x_n + last_n
        slope_n = 4.0 * (inner_n + square_n) * x_n - 8.0 * determinant_n
        step_n = value_n / np.where(slope_n > 0, slope_n, np.inf)
        x_n -= step_n
        if (np.abs(step_n) <= 1e-15 * x_n).all():
            break
    return x_n


def _check_pair(predicted_nj3: NDArray[Any], truth_nj3: NDArray[Any]) -> None:
    """Refuse shapes that do not fit and true poses that are not finite."""
    shapes = (predicted_nj3.shape, truth_nj3.shape)
    if shapes[0] != shapes[1] or truth_nj3.ndim != 3 or truth_nj3.shape[2] != 3:
        raise ValueError(f"both arrays of poses must have the same shape (N, J, 3), got {shapes}")
    if not np.isfinite(truth_nj3).all():
        bad_n = ~np.isfinite(truth_nj3).all(axis=(1, 2))
        raise BadInputError(
            f"{int(bad_n.sum())} of {len(bad_n)} true poses are not finite (the first is row "
            f"{int(bad_n.argmax())}): import the data again without those frames"
        )
