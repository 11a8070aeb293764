"""Scores every frame: the model, the trivial baselines, and references that use the truth.

There is one column per score with one entry per frame, so that averages, intervals and comparisons
are all made from the same numbers. A split without true 3D poses has the 2D columns only.

Frames and units:
    3D      camera axes (x right, y down, z away from the camera); the truth in millimetres
    2D      crop coordinates in [-1, 1] (x right, y down); centre of pixel i of S at -1 + 2i/(S-1)
Shape letters:
    N frames, J joints
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfpose.data.store import Split, Store
from selfpose.evaluation.baselines import baseline_errors, fit_constants, fit_mean_2d
from selfpose.method.metrics import (
    AUC_THRESHOLDS_MM,
    PCK_THRESHOLD_MM,
    error_2d_px,
    error_2d_side_swap_px,
    flat_depth,
    joint_distances,
    p_mpjpe,
    p_mpjpe_side_swap,
    pck_joints,
    scale_to_truth,
    share_within,
)
from selfpose.method.procrustes import procrustes_align
from selfpose.method.skeleton import Layout

__all__ = ["Predictions", "Row", "score_frames", "table_rows", "truth_3d"]

_ASSUMPTIONS = {"complete": "Unp. 2D", "supervised": "Full-3D", "lifting": "true 2D pose"}
"""What each mode of training needs, in the supplementary's words. A model of lifting mode does not
see images."""


@dataclass(frozen=True)
class Predictions:
    """Holds what a model predicts for the rows of a split."""

    joints_2d_nj2: NDArray[np.float32]
    """2D poses, (N, J, 2), in crop coordinates. They are the true ones if the model takes 2D poses
    instead of images."""
    poses_nj3: NDArray[np.float32]
    """3D poses, (N, J, 3), in camera axes, with the root at 0 and mean limb length 1."""
    lifted_true_nj3: NDArray[np.float32]
    """3D poses that the model lifts from the true 2D poses, (N, J, 3), in the same frame and
    unit as `poses_nj3`."""


@dataclass(frozen=True)
class Row:
    """Describes how a table shows a column of scores."""

    column: str
    """Name of the column."""
    method: str
    """Text in the table's column `Method`."""
    assumptions: str
    """Text in the table's column `Assumptions`: what the method needs."""


def truth_3d(rows: Split) -> NDArray[np.float32] | None:
    """Return the true 3D poses of a split, (N, J, 3), in mm in camera axes; None without any."""
    return rows.joints_3d if rows.has_3d else None


def score_frames(
    predicted: Predictions, rows: Split, *, store: Store, image_size: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Return all columns of scores, (N,) each, by name; a name ends in the unit.

    Args:
        predicted: the model's poses of all rows.
        rows: the split.
        store: the store, whose training split the constant baselines are fitted to.
        image_size: side in pixels of the images that the model sees.
        seed: seed of the choice of frames that the constants are fitted to.
    """
    truth_2d_nj2, truth_nj3 = rows.joints_2d, truth_3d(rows)
    columns: dict[str, NDArray[np.float64]] = {}
    if truth_nj3 is None:
        mean_j2 = fit_mean_2d(store, seed=seed)
    else:
        constants = fit_constants(store, seed=seed)
        mean_j2 = constants.mean_2d_j2
        columns = _score_3d(predicted, truth_nj3, layout=store.layout)
        baselines = baseline_errors(constants, truth_3d_nj3=truth_nj3, truth_2d_nj2=truth_2d_nj2)
        columns |= {f"{name}_mm": error_n for name, error_n in baselines.items()}
        columns["error_2d_side_swap_px"] = error_2d_side_swap_px(
            predicted.joints_2d_nj2, truth_2d_nj2, image_size=image_size, layout=store.layout
        )
    compared: dict[str, NDArray[Any]] = {
        "error_2d_px": predicted.joints_2d_nj2,
        "mean_2d_pose_px": mean_j2,
    }
    for name, joints in compared.items():
        joints_nj2 = np.broadcast_to(joints, truth_2d_nj2.shape)
        columns[name] = error_2d_px(joints_nj2, truth_2d_nj2, image_size=image_size)
    return columns


def _score_3d(
    predicted: Predictions, truth_nj3: NDArray[Any], *, layout: Layout
) -> dict[str, NDArray[np.float64]]:
    """Return the columns of the model's 3D poses; `truth_nj3` is in mm in camera axes."""
    poses_nj3, counted = predicted.poses_nj3, pck_joints(layout)
    aligned_nj3 = procrustes_align(poses_nj3, truth_nj3, reflection="never")
    aligned_nj = joint_distances(aligned_nj3, truth_nj3)
    scaled_nj = joint_distances(*scale_to_truth(poses_nj3, truth_nj3, root=layout.root))
    return {
        "p_mpjpe_mm": aligned_nj.mean(axis=1),
        "p_mpjpe_mirrored_mm": p_mpjpe(poses_nj3, truth_nj3, reflection="best"),
        "p_mpjpe_side_swap_mm": p_mpjpe_side_swap(poses_nj3, truth_nj3, layout=layout),
        "n_mpjpe_mm": scaled_nj.mean(axis=1),
        "flat_predicted_mm": p_mpjpe(flat_depth(predicted.joints_2d_nj2), truth_nj3),
        "lifted_true_mm": p_mpjpe(predicted.lifted_true_nj3, truth_nj3),
        **_found(scaled_nj[:, counted], ("pck_150", "auc")),
        **_found(aligned_nj[:, counted], ("p_pck_150", "p_auc")),
    }


def _found(
    distance_nj: NDArray[np.float64], names: tuple[str, str]
) -> Mapping[str, NDArray[np.float64]]:
    """Return two columns: PCK at 150 mm, and its mean over the thresholds of the AUC.

    Both are shares of a frame's joints that are closer to the truth than the threshold; NaN where
    the truth is degenerate.
    """
    shares = [share_within(distance_nj, threshold) for threshold in AUC_THRESHOLDS_MM]
    within_n = share_within(distance_nj, PCK_THRESHOLD_MM)
    return dict(zip(names, (within_n, np.mean(shares, axis=0)), strict=True))


def table_rows(*, has_3d: bool, mode: str) -> list[Row]:
    """Return the rows of the per-activity table, the model's own rows first.

    Args:
        has_3d: whether the data has true 3D poses.
        mode: the mode in which the model was trained: `complete`, `supervised` or `lifting`.
    """
    sees = _ASSUMPTIONS[mode]
    if not has_3d:
        return [
            Row("error_2d_px", "this model", sees),
            Row("mean_2d_pose_px", "baseline: mean 2D pose", "constant"),
        ]
    own_2d = "true 2D pose" if mode == "lifting" else "predicted 2D"
    return [
        Row("p_mpjpe_mm", "this model", sees),
        Row("p_mpjpe_mirrored_mm", "this model, mirror image allowed", sees),
        Row("p_mpjpe_side_swap_mm", "this model, better of left/right swap", sees),
        Row("mean_shape_mm", "baseline: mean shape", "constant, train 3D"),
        Row("flat_predicted_mm", "baseline: model's 2D pose, depth 0", own_2d),
        Row("lifted_true_mm", "reference: model's lifting of the true 2D pose", "true 2D pose"),
        Row("flat_depth_true_2d_mm", "reference: true 2D pose, depth 0", "true 2D pose"),
        Row("camera_mean_mm", "reference: mean pose in camera axes", "constant, train 3D"),
        Row("depth_flipped_truth_mm", "reference: true pose, depth flipped", "true 3D pose"),
    ]
