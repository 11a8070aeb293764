"""Similarity Procrustes alignment of many poses at once, and the mean shape it defines.

All computation is float64, whatever comes in. A rotation acts on row vectors from the right:
`aligned = scale * predicted @ rotation + shift`.

Shape letters:
    N poses, J joints
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


def procrustes_align(
    predicted_nj3: NDArray[Any], truth_nj3: NDArray[Any], *, reflection: Reflection
) -> NDArray[np.float64]:
    """Scale, rotate and shift each predicted pose to fit its true pose best.

    Minimises, per pose, sum_j ‖scale * predicted_j R + shift - truth_j‖² with scale >= 0 and R a
    rotation (Umeyama 1991, by one 3x3 singular value decomposition), or with `reflection="best"` a
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
    finite_n = np.asarray(np.isfinite(predicted_nj3).all(axis=(1, 2)))
    predicted_nj3 = np.where(finite_n[:, None, None], predicted_nj3, 0.0)
    # Unit size first: squares of very large or small coordinates would leave float64's range.
    largest_n11 = np.abs(predicted_nj3).max(axis=(1, 2), keepdims=True)
    predicted_nj3 = predicted_nj3 / np.where(largest_n11 > 0, largest_n11, 1.0)
    predicted_nj3 -= predicted_nj3.mean(axis=1, keepdims=True)
    shift_n13 = truth_nj3.mean(axis=1, keepdims=True)

    covariance_n33 = predicted_nj3.transpose(0, 2, 1) @ (truth_nj3 - shift_n13)
    left_n33, stretch_n3, right_n33 = np.linalg.svd(covariance_n33)
    if reflection == "never":
        sign_n = np.where(np.linalg.det(left_n33 @ right_n33) < 0, -1.0, 1.0)
        left_n33[:, :, 2] *= sign_n[:, None]
        stretch_n3[:, 2] *= sign_n
    square_n = np.square(predicted_nj3).sum(axis=(1, 2))
    scale_n = stretch_n3.sum(axis=1) / np.where(square_n > 0, square_n, 1.0)

    aligned_nj3 = scale_n[:, None, None] * (predicted_nj3 @ (left_n33 @ right_n33)) + shift_n13
    aligned_nj3[~finite_n] = np.inf
    return np.asarray(aligned_nj3, dtype=np.float64)


def _check_pair(predicted_nj3: NDArray[Any], truth_nj3: NDArray[Any]) -> None:
    """Refuse shapes that do not fit and true poses that are not finite."""
    shapes = (predicted_nj3.shape, truth_nj3.shape)
    if shapes[0] != shapes[1] or truth_nj3.ndim != 3 or truth_nj3.shape[2] != 3:
        raise ValueError(f"both arrays of poses must have the same shape (N, J, 3), got {shapes}")
    bad_n = ~np.isfinite(truth_nj3).all(axis=(1, 2))
    if bad_n.any():
        raise BadInputError(
            f"{int(bad_n.sum())} of {len(bad_n)} true poses are not finite (the first is row "
            f"{int(bad_n.argmax())}): import the data again without those frames"
        )
