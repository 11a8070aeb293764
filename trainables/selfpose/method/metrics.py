"""How good predicted poses are: per-frame errors, their averages, and what validation reports.

One idea, the field's metrics beside each other, so it is long.
Read `validation_metrics` first. Errors are computed per frame and averaged at the end; a
prediction that is not finite has an infinite error. Predictions have no scale of their own, so
each 3D error first fits either a similarity (P-) or a scale (N-) to the truth; a scale is never
negative, because that would turn a pose inside out. A truth with all joints in one place is no
pose: every error against it is NaN, and so is every average that it is part of.

Frames and units:
    3D      camera axes (x right, y down, z away from the camera); the truth in millimetres
    2D      crop coordinates in [-1, 1] (x right, y down); centre of pixel i of S at -1 + 2i/(S-1)
Shape letters:
    N frames, J joints (order of the layout), S pixels of a crop's side
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from posetune.api import Metric
from selfpose.method.procrustes import Reflection, procrustes_align
from selfpose.method.skeleton import Layout

__all__ = [
    "METRICS",
    "METRICS_2D",
    "ActivityGroups",
    "ValidationArrays",
    "auc",
    "error_2d_px",
    "error_2d_side_swap_px",
    "flat_depth",
    "group_activities",
    "is_degenerate",
    "joint_distances",
    "mpjpe",
    "n_mpjpe",
    "p_mpjpe",
    "p_mpjpe_side_swap",
    "pck",
    "pck_joints",
    "scale_to_truth",
    "share_within",
    "validation_metrics",
    "validation_subset",
]

PCK_THRESHOLD_MM = 150.0
AUC_THRESHOLDS_MM = np.linspace(0.0, 150.0, 31)

# MPI-INF-3DHP scores 14 of its 17 joints: not these (datasets' test code; the root would always
# count as found).
PCK_JOINTS_LEFT_OUT = frozenset({"pelvis", "spine", "neck"})

# An activity with fewer frames or motions says little about the activity; it is pooled.
LEAST_FRAMES = 100
LEAST_MOTIONS = 3

METRICS: Mapping[str, Metric] = {
    "val/p_mpjpe_mm": Metric(
        "mm", "min", "Mean joint distance after a similarity fit without mirror; mean of activities"
    ),
    "val/p_mpjpe_frame_mm": Metric(
        "mm", "min", "Mean joint distance after a similarity fit without mirror; mean of frames"
    ),
    "val/p_mpjpe_mirrored_mm": Metric(
        "mm", "min", "Mean joint distance after a similarity fit that may mirror; mean of frames"
    ),
    "val/p_mpjpe_side_swap_mm": Metric(
        "mm",
        "min",
        "Mean joint distance after a similarity fit, of the pose or of its left/right swap, the "
        "smaller one; mean of frames",
    ),
    "val/n_mpjpe_mm": Metric(
        "mm", "min", "Mean joint distance, root at 0, after the least-squares scale (0 or more)"
    ),
    "val/pck_150": Metric(
        "share",
        "max",
        "Share of joints closer than 150 mm, root at 0, after the least-squares scale",
    ),
    "val/auc": Metric(
        "share", "max", "Mean share of joints closer than 0, 5, ..., 150 mm; else as val/pck_150"
    ),
    "val/error_2d_px": Metric("px", "min", "Mean distance of 2D joints, pixels of the input image"),
    "val/error_2d_side_swap_px": Metric(
        "px", "min", "Mean distance of 2D joints, of the pose or its left/right swap if smaller"
    ),
    "val/flat_predicted_mm": Metric(
        "mm", "min", "Baseline: val/p_mpjpe_mm of the predicted 2D pose with depth 0"
    ),
    "val/lifted_true_mm": Metric(
        "mm", "min", "Reference: val/p_mpjpe_mm of the true 2D pose, lifted"
    ),
}

METRICS_2D = ("val/error_2d_px",)
"""Metrics that need no true 3D poses."""


class ValidationArrays(TypedDict):
    """What `validation_metrics` needs beside the 3D poses, given by keyword."""

    predicted_2d_nj2: NDArray[Any]
    """Predicted 2D poses, (N, J, 2), crop coordinates."""
    truth_2d_nj2: NDArray[Any]
    """True 2D poses, (N, J, 2), crop coordinates."""
    lifted_true_nj3: NDArray[Any]
    """What the lifter makes of the true 2D poses, (N, J, 3), camera axes, any unit."""
    activity_n: NDArray[Any]
    """Activity of each frame, (N,), integers."""
    motion_n: NDArray[Any]
    """Motion that each frame belongs to, (N,), integers."""
    layout: Layout
    image_size: int
    """Side S of the crop, pixels."""


def validation_metrics(
    predicted_3d_nj3: NDArray[Any],
    truth_3d_nj3: NDArray[Any] | None,
    **given: Unpack[ValidationArrays],
) -> dict[str, float]:
    """Compute every metric of `METRICS`, or of `METRICS_2D` where there is no 3D truth.

    Args:
        predicted_3d_nj3: predicted poses, (N, J, 3), camera axes, any length unit.
        truth_3d_nj3: true poses, (N, J, 3), camera axes, mm; None if they are not known.
        given: the fields of `ValidationArrays`.

    Returns:
        Metric name to value. Not finite if a prediction is not; NaN if a true pose is degenerate.

    Raises:
        ValueError: there is no frame, or shapes do not fit.
        BadInputError: a true pose is not finite.
    """
    layout = given["layout"]
    pixels_n = error_2d_px(
        given["predicted_2d_nj2"], given["truth_2d_nj2"], image_size=given["image_size"]
    )
    if truth_3d_nj3 is None:
        return {"val/error_2d_px": float(pixels_n.mean())}
    groups = group_activities(given["activity_n"], given["motion_n"])
    error_n = p_mpjpe(predicted_3d_nj3, truth_3d_nj3)
    scaled_nj3, centred_nj3 = scale_to_truth(predicted_3d_nj3, truth_3d_nj3, root=layout.root)
    distance_nj = joint_distances(scaled_nj3, centred_nj3)
    counted_nj = distance_nj[:, pck_joints(layout)]
    averages = {
        "p_mpjpe_mm": groups.macro_average(error_n),
        "p_mpjpe_frame_mm": error_n.mean(),
        "p_mpjpe_mirrored_mm": p_mpjpe(predicted_3d_nj3, truth_3d_nj3, reflection="best").mean(),
        "p_mpjpe_side_swap_mm": p_mpjpe_side_swap(
            predicted_3d_nj3, truth_3d_nj3, layout=layout
        ).mean(),
        "n_mpjpe_mm": distance_nj.mean(),
        "pck_150": pck(counted_nj),
        "auc": auc(counted_nj),
        "error_2d_px": pixels_n.mean(),
        "error_2d_side_swap_px": error_2d_side_swap_px(
            given["predicted_2d_nj2"],
            given["truth_2d_nj2"],
            image_size=given["image_size"],
            layout=layout,
        ).mean(),
        "flat_predicted_mm": groups.macro_average(
            p_mpjpe(flat_depth(given["predicted_2d_nj2"]), truth_3d_nj3)
        ),
        "lifted_true_mm": groups.macro_average(p_mpjpe(given["lifted_true_nj3"], truth_3d_nj3)),
    }
    return {f"val/{name}": float(value) for name, value in averages.items()}


def joint_distances(a_njd: NDArray[Any], b_njd: NDArray[Any]) -> NDArray[np.float64]:
    """Return the distance of each joint of a prediction to the same joint of the truth.

    Args:
        a_njd: predicted poses, (N, J, D), any frame and unit.
        b_njd: true poses, (N, J, D), the same frame and unit.

    Returns:
        Distances, (N, J), the same unit. One that is not a number, because a predicted joint is
        not, is infinite. All distances to a truth that is degenerate (see `is_degenerate`) are NaN.

    Raises:
        ValueError: the shapes differ.
    """
    if a_njd.shape != b_njd.shape:
        raise ValueError(f"poses must have the same shape, got {a_njd.shape} and {b_njd.shape}")
    with np.errstate(invalid="ignore", over="ignore"):  # of a prediction that is not finite
        distance_nj = np.linalg.norm(a_njd.astype(np.float64) - b_njd, axis=-1)
    distance_nj = np.where(np.isnan(distance_nj), np.inf, distance_nj)
    distance_nj[is_degenerate(b_njd)] = np.nan
    return distance_nj


def is_degenerate(poses_njd: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which poses have all joints in one place, or a joint that is not a number, (N,).

    Args:
        poses_njd: poses, (N, J, D), any unit and frame.
    """
    with np.errstate(invalid="ignore"):  # of infinities
        extent_n = np.ptp(poses_njd.astype(np.float64), axis=1).max(axis=1)
    poses_apart_n: NDArray[np.bool_] = (extent_n > 0) & np.isfinite(extent_n)  # NaN compares False
    return ~poses_apart_n


def p_mpjpe(
    predicted_nj3: NDArray[Any], truth_nj3: NDArray[Any], *, reflection: Reflection = "never"
) -> NDArray[np.float64]:
    """Return each frame's mean joint distance after the best similarity transform.

    Args:
        predicted_nj3: predicted poses, (N, J, 3), any unit and frame.
        truth_nj3: true poses, (N, J, 3), mm.
        reflection: "best" also allows a mirror image, which forgives a depth flip.

    Returns:
        Errors, (N,), mm.
    """
    return joint_distances(
        procrustes_align(predicted_nj3, truth_nj3, reflection=reflection), truth_nj3
    ).mean(axis=1)


def p_mpjpe_side_swap(
    predicted_nj3: NDArray[Any], truth_nj3: NDArray[Any], *, layout: Layout
) -> NDArray[np.float64]:
    """Return each frame's P-MPJPE of the pose or of its left/right swap, the smaller one.

    Args:
        predicted_nj3: predicted poses, (N, J, 3), any unit and frame.
        truth_nj3: true poses, (N, J, 3), mm.
        layout: says which joints are each other's mirror image.

    Returns:
        Errors, (N,), mm.
    """
    swapped_nj3 = predicted_nj3[:, list(layout.mirror)]
    return np.minimum(p_mpjpe(predicted_nj3, truth_nj3), p_mpjpe(swapped_nj3, truth_nj3))


def scale_to_truth(
    predicted_nj3: NDArray[Any], truth_nj3: NDArray[Any], *, root: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Move both poses' roots to 0 and scale the predicted one by least squares, by 0 or more.

    Args:
        predicted_nj3: predicted poses, (N, J, 3), camera axes, any unit.
        truth_nj3: true poses, (N, J, 3), camera axes, mm.
        root: index of the root joint.

    Returns:
        The scaled predictions and the centred truth, both (N, J, 3), mm.
    """
    predicted_nj3, truth_nj3 = _root_at_zero(predicted_nj3, root), _root_at_zero(truth_nj3, root)
    with np.errstate(invalid="ignore", over="ignore"):  # of a prediction that is not finite
        square_n = np.square(predicted_nj3).sum(axis=(1, 2))
        product_n = (predicted_nj3 * truth_nj3).sum(axis=(1, 2))
        # A negative scale would find a pose that is turned inside out, -truth, without a fault.
        scale_n = np.maximum(product_n / np.where(square_n > 0, square_n, 1.0), 0.0)
        return scale_n[:, None, None] * predicted_nj3, truth_nj3


def n_mpjpe(
    predicted_nj3: NDArray[Any], truth_nj3: NDArray[Any], *, root: int
) -> NDArray[np.float64]:
    """Return each frame's mean joint distance after scaling by least squares, roots at 0.

    Args:
        predicted_nj3: predicted poses, (N, J, 3), camera axes, any unit.
        truth_nj3: true poses, (N, J, 3), camera axes, mm.
        root: index of the root joint.

    Returns:
        Errors, (N,), mm.
    """
    return joint_distances(*scale_to_truth(predicted_nj3, truth_nj3, root=root)).mean(axis=1)


def mpjpe(
    predicted_nj3: NDArray[Any], truth_nj3: NDArray[Any], *, root: int
) -> NDArray[np.float64]:
    """Return each frame's mean joint distance with both roots at 0.

    Args:
        predicted_nj3: predicted poses, (N, J, 3), camera axes, mm.
        truth_nj3: true poses, (N, J, 3), camera axes, mm.
        root: index of the root joint.

    Returns:
        Errors, (N,), mm.
    """
    return joint_distances(_root_at_zero(predicted_nj3, root), _root_at_zero(truth_nj3, root)).mean(
        axis=1
    )


def pck_joints(layout: Layout) -> list[int]:
    """Return the joints that PCK and AUC count: for a body the 14 of MPI-INF-3DHP."""
    return [j for j, name in enumerate(layout.joints) if name not in PCK_JOINTS_LEFT_OUT]


def pck(distance_nj: NDArray[Any], threshold_mm: float = PCK_THRESHOLD_MM) -> float:
    """Return the share of joints that are closer to the truth than a threshold.

    Args:
        distance_nj: distance of each joint from the truth, (N, J), mm.
        threshold_mm: the threshold, mm.

    Returns:
        The share, 0 to 1, no unit; NaN if a distance is.
    """
    return float(share_within(distance_nj, threshold_mm).mean())


def share_within(distance_nj: NDArray[Any], threshold_mm: float) -> NDArray[np.float64]:
    """Return the share of each frame's joints that are closer to the truth than a threshold.

    Args:
        distance_nj: distance of each joint from the truth, (N, J), mm.
        threshold_mm: the threshold, mm.

    Returns:
        The shares, (N,), 0 to 1, no unit; NaN for a frame with a distance that is NaN.
    """
    share_n = (distance_nj < threshold_mm).mean(axis=1)
    return np.where(np.isnan(distance_nj).any(axis=1), np.nan, share_n)


def auc(distance_nj: NDArray[Any]) -> float:
    """Return the mean of PCK over the thresholds 0, 5, ..., 150 mm.

    Args:
        distance_nj: distance of each joint from the truth, (N, J), mm.

    Returns:
        The mean, 0 to 1, no unit.
    """
    return float(np.mean([pck(distance_nj, threshold) for threshold in AUC_THRESHOLDS_MM]))


def error_2d_px(
    predicted_nj2: NDArray[Any], truth_nj2: NDArray[Any], *, image_size: int
) -> NDArray[np.float64]:
    """Return each frame's mean distance of 2D joints from the truth, in pixels.

    Args:
        predicted_nj2: predicted 2D poses, (N, J, 2), crop coordinates.
        truth_nj2: true 2D poses, (N, J, 2), crop coordinates.
        image_size: side of the crop, pixels.

    Returns:
        Errors, (N,), pixels of the crop.
    """
    return joint_distances(predicted_nj2, truth_nj2).mean(axis=1) * (image_size - 1) / 2


def error_2d_side_swap_px(
    predicted_nj2: NDArray[Any], truth_nj2: NDArray[Any], *, image_size: int, layout: Layout
) -> NDArray[np.float64]:
    """Return each frame's 2D error of the pose or of its left/right swap, the smaller one.

    Args:
        predicted_nj2: predicted 2D poses, (N, J, 2), crop coordinates.
        truth_nj2: true 2D poses, (N, J, 2), crop coordinates.
        image_size: side of the crop, pixels.
        layout: says which joints are each other's mirror image.

    Returns:
        Errors, (N,), pixels of the crop.
    """
    swapped_nj2 = predicted_nj2[:, list(layout.mirror)]
    return np.minimum(
        error_2d_px(predicted_nj2, truth_nj2, image_size=image_size),
        error_2d_px(swapped_nj2, truth_nj2, image_size=image_size),
    )


def flat_depth(joints_nj2: NDArray[Any]) -> NDArray[Any]:
    """Return 2D poses as 3D poses with depth 0.

    Args:
        joints_nj2: 2D poses, (N, J, 2), any unit, x right, y down.

    Returns:
        Poses, (N, J, 3), camera axes, the same unit.
    """
    return np.concatenate([joints_nj2, np.zeros_like(joints_nj2[..., :1])], axis=-1)


@dataclass(frozen=True)
class ActivityGroups:
    """Says which activities have a mean of their own in a macro average, and pools the rest."""

    own: tuple[int, ...]
    """Activities with at least 100 frames and 3 motions."""
    pooled: tuple[int, ...]
    """All others that occur; together they count as one activity."""
    group_n: NDArray[np.int64]
    """The group of each frame, (N,): an index into `own`, or its length for the pool."""

    def macro_average(self, error_n: NDArray[Any]) -> float:
        """Return the mean over groups of each group's mean; with no `own`, the frame mean.

        Args:
            error_n: an error of each frame, (N,), any unit.

        Returns:
            The average, the same unit.

        Raises:
            ValueError: not one error for each frame that was grouped.
        """
        if error_n.shape != self.group_n.shape:
            raise ValueError(
                f"there must be one error for each of the {len(self.group_n)} grouped frames, got "
                f"an array of shape {error_n.shape}"
            )
        frames_g = np.bincount(self.group_n)
        return float((np.bincount(self.group_n, weights=error_n) / frames_g).mean())


def group_activities(activity_n: NDArray[Any], motion_n: NDArray[Any]) -> ActivityGroups:
    """Sort activities into those with enough frames and motions for a mean of their own, and rest.

    Args:
        activity_n: activity of each frame, (N,), integers.
        motion_n: motion that each frame belongs to, (N,), integers.

    Returns:
        The groups, so that the list can be logged and the same one used for every average.

    Raises:
        ValueError: there is no frame.
    """
    if not len(activity_n):
        raise ValueError("the average over 0 frames is not defined; give at least one")
    present, frames = np.unique(activity_n, return_counts=True)
    motions = [len(np.unique(motion_n[activity_n == activity])) for activity in present]
    enough = (frames >= LEAST_FRAMES) & (np.array(motions) >= LEAST_MOTIONS)
    own = present[enough]
    group_n = np.where(np.isin(activity_n, own), np.searchsorted(own, activity_n), len(own)).astype(
        np.int64
    )
    return ActivityGroups(
        own=tuple(int(a) for a in own),
        pooled=tuple(int(a) for a in present[~enough]),
        group_n=group_n,
    )


def validation_subset(length: int, frames: int, seed: int) -> NDArray[np.int64]:
    """Choose the rows of a split that validation looks at: fixed, seeded, spread over the split.

    One row is drawn from each of `frames` equal pieces, so every motion (whose rows are together)
    gets its share, and no camera is preferred.

    Args:
        length: rows of the split.
        frames: rows wanted; all are taken if there are no more.
        seed: decides which row of each piece.

    Returns:
        Different rows in ascending order, (N,), int64; N is the smaller of `frames` and `length`.
    """
    if frames >= length:
        return np.arange(length, dtype=np.int64)
    edges = np.arange(frames + 1, dtype=np.int64) * length // frames
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:], dtype=np.int64)


def _root_at_zero(poses_nj3: NDArray[Any], root: int) -> NDArray[np.float64]:
    """Return poses (N, J, 3) moved so that their root is at 0."""
    with np.errstate(invalid="ignore"):  # of a prediction that is not finite
        return np.asarray(poses_nj3.astype(np.float64) - poses_nj3[:, root, None])
