"""Computes trivial baselines: the errors of guesses that need no learning, once per store.

A model that does not beat `mean_shape` has learned nothing. `flat_depth_true_2d` and
`depth_flipped_truth` use the truth and are references: they show what 2D alone gives, and what the
wrong sign of all depths costs.

Frames and units:
    3D      camera axes (x right, y down, z away from the camera), millimetres
    2D      crop coordinates in [-1, 1] (x right, y down); centre of pixel i of S at -1 + 2i/(S-1)
Shape letters:
    N frames, J joints, S pixels of a crop's side
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from posetune.api import BadInputError
from selfpose.data.store import Split, Store
from selfpose.method.metrics import (
    ActivityGroups,
    error_2d_px,
    flat_depth,
    group_activities,
    p_mpjpe,
    validation_subset,
)
from selfpose.method.procrustes import procrustes_mean
from selfpose.whole_files import write_whole, writing_whole

__all__ = [
    "ConstantPoses",
    "baseline_errors",
    "build_baselines",
    "fit_constants",
    "fit_mean_2d",
    "read_baselines",
    "score_constant_2d",
    "score_poses",
]

VALUES_FILE = "baselines.json"
CONSTANTS_FILE = "constant_poses.safetensors"

_FIT_FRAMES = 20_000
"""Number of training frames from which constant poses are computed at most. More change nothing: on
motion capture, the score of the mean shape of 80,000 frames differs by 0.001 mm."""


@dataclass(frozen=True)
class ConstantPoses:
    """Holds the best guesses that do not look at the image, from the training split."""

    mean_shape_j3: NDArray[np.float64]
    """Generalised Procrustes mean of the poses, (J, 3), in mm. P-MPJPE forgives rotation, so this
    is the best constant guess for it."""
    camera_mean_j3: NDArray[np.float64]
    """Mean of the root-centred poses, (J, 3), in mm in camera axes."""
    mean_2d_j2: NDArray[np.float64]
    """Mean 2D pose, (J, 2), in crop coordinates."""


def build_baselines(
    store: Store, *, val_frames: int, image_size: int, seed: int, folder: Path
) -> None:
    """Write the baselines of a store, on the rows that validation looks at, into a folder.

    Data without true 3D poses has only 2D baselines.

    Args:
        store: the store; constants come from its training split, scores from its validation split.
        val_frames: number of frames of the validation subset, see `metrics.validation_subset`.
        image_size: side S in pixels of the images that the model sees.
        seed: seed of the validation subset, and of the frames that constants are fitted to.
        folder: an existing folder to write into.

    Raises:
        BadInputError: a split that is needed has no rows.
    """
    constants = {"mean_2d_j2": fit_mean_2d(store, seed=seed)}
    val = store.split("val")
    if not len(val):
        raise BadInputError(f"{store.root}: split val has no rows: import more data")
    rows_n = validation_subset(len(val), val_frames, seed)
    truth_2d_nj2 = val.joints_2d[rows_n]
    groups = group_activities(val.activity[rows_n], val.motion[rows_n])
    values = {
        "frames": len(rows_n),
        "seed": seed,
        "activities": _activity_names(groups, store.metadata.activities),
        "mm": {},
        "px": score_constant_2d(constants["mean_2d_j2"], truth_2d_nj2, image_size=image_size),
    }
    if val.has_3d:
        poses = fit_constants(store, seed=seed)
        constants |= vars(poses)
        values["mm"] = score_poses(
            poses, truth_3d_nj3=val.joints_3d[rows_n], truth_2d_nj2=truth_2d_nj2, groups=groups
        )
    with writing_whole(folder / CONSTANTS_FILE) as partial:
        save_file({name: np.ascontiguousarray(a) for name, a in constants.items()}, partial)
    write_whole(folder / VALUES_FILE, json.dumps(values, indent=2) + "\n")


def fit_constants(store: Store, *, seed: int) -> ConstantPoses:
    """Compute the constant poses from at most 20,000 frames of the training split.

    Args:
        store: the store.
        seed: seed of the choice of frames.

    Raises:
        BadInputError: the training split has no rows, or no true 3D poses.
    """
    train, rows_n = _rows_to_fit(store, seed)
    poses_nj3 = train.joints_3d[rows_n].astype(np.float64)
    return ConstantPoses(
        mean_shape_j3=procrustes_mean(poses_nj3),
        camera_mean_j3=(poses_nj3 - poses_nj3[:, store.layout.root, None]).mean(axis=0),
        mean_2d_j2=fit_mean_2d(store, seed=seed),
    )


def fit_mean_2d(store: Store, *, seed: int) -> NDArray[np.float64]:
    """Return the mean 2D pose of at most 20,000 frames of the training split.

    Args:
        store: the store.
        seed: seed of the choice of frames.

    Returns:
        The pose, (J, 2), in crop coordinates.

    Raises:
        BadInputError: the training split has no rows.
    """
    train, rows_n = _rows_to_fit(store, seed)
    return np.asarray(train.joints_2d[rows_n].mean(axis=0, dtype=np.float64))


def _rows_to_fit(store: Store, seed: int) -> tuple[Split, NDArray[np.int64]]:
    train = store.split("train")
    if not len(train):
        raise BadInputError(f"{store.root}: split train has no rows: import more data")
    return train, validation_subset(len(train), _FIT_FRAMES, seed)


def score_poses(
    constants: ConstantPoses,
    *,
    truth_3d_nj3: NDArray[Any],
    truth_2d_nj2: NDArray[Any],
    groups: ActivityGroups,
) -> dict[str, float]:
    """Return the P-MPJPE (proper rotation, mm) of every trivial 3D baseline.

    Args:
        constants: the constant poses.
        truth_3d_nj3: true poses, (N, J, 3), in mm in camera axes.
        truth_2d_nj2: true 2D poses, (N, J, 2), in crop coordinates.
        groups: activities of the frames, grouped for the macro average.

    Returns:
        For each baseline its macro average over activities as `<name>`, to compare with the
        objective, and its mean over frames as `<name>_frame`; both in mm.
    """
    errors = baseline_errors(constants, truth_3d_nj3=truth_3d_nj3, truth_2d_nj2=truth_2d_nj2)
    scores: dict[str, float] = {}
    for name, error_n in errors.items():
        scores[name] = groups.macro_average(error_n)
        scores[f"{name}_frame"] = float(error_n.mean())
    return scores


def baseline_errors(
    constants: ConstantPoses, *, truth_3d_nj3: NDArray[Any], truth_2d_nj2: NDArray[Any]
) -> dict[str, NDArray[np.float64]]:
    """Return the P-MPJPE (proper rotation) of each frame, for every trivial 3D baseline.

    Args:
        constants: the constant poses.
        truth_3d_nj3: true poses, (N, J, 3), in mm in camera axes.
        truth_2d_nj2: true 2D poses, (N, J, 2), in crop coordinates.

    Returns:
        Errors, (N,), in mm, by the baseline's name.
    """
    shape = truth_3d_nj3.shape
    poses = {
        "mean_shape": np.broadcast_to(constants.mean_shape_j3, shape),
        "camera_mean": np.broadcast_to(constants.camera_mean_j3, shape),
        "flat_depth_true_2d": flat_depth(truth_2d_nj2),
        "depth_flipped_truth": truth_3d_nj3 * np.array([1.0, 1.0, -1.0]),
    }
    return {name: p_mpjpe(poses_nj3, truth_3d_nj3) for name, poses_nj3 in poses.items()}


def score_constant_2d(
    mean_2d_j2: NDArray[Any], truth_2d_nj2: NDArray[Any], *, image_size: int
) -> dict[str, float]:
    """Return the mean error of the mean 2D pose, by the baseline's name.

    Args:
        mean_2d_j2: mean 2D pose, (J, 2), in crop coordinates.
        truth_2d_nj2: true 2D poses, (N, J, 2), in crop coordinates.
        image_size: side in pixels of the images in whose pixels the error is measured.
    """
    mean_nj2 = np.broadcast_to(mean_2d_j2, truth_2d_nj2.shape)
    pixels_n = error_2d_px(mean_nj2, truth_2d_nj2, image_size=image_size)
    return {"mean_2d_pose": float(pixels_n.mean())}


def read_baselines(folder: Path, metric: str) -> Mapping[str, float]:
    """Return the baselines of one metric that `build_baselines` wrote.

    Args:
        folder: folder of the finished product.
        metric: name of the metric. Only `val/p_mpjpe_mm` (the macro average),
            `val/p_mpjpe_frame_mm` and `val/error_2d_px` have baselines.

    Returns:
        Value of each baseline in the metric's unit, by its name; empty for other metrics.

    Raises:
        BadInputError: the file of the baselines cannot be read.
    """
    if metric == "val/error_2d_px":
        return _read_values(folder, "px")
    of_frames = metric == "val/p_mpjpe_frame_mm"
    if not of_frames and metric != "val/p_mpjpe_mm":
        return {}
    return {
        name.removesuffix("_frame"): value
        for name, value in _read_values(folder, "mm").items()
        if name.endswith("_frame") == of_frames
    }


def _read_values(folder: Path, unit: str) -> Mapping[str, float]:
    """Return the baselines of one unit, `mm` or `px`, from the file of the baselines.

    Raises:
        BadInputError: the file cannot be read.
    """
    file = folder / VALUES_FILE
    try:
        values = json.loads(file.read_text(encoding="utf-8"))[unit]
        return {str(name): float(value) for name, value in values.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(
            f"{file}: no baselines can be read ({type(error).__name__}: {error}): remove the "
            "folder, and the next sweep builds it again"
        ) from error


def _activity_names(groups: ActivityGroups, names: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the names of the activities with a mean of their own, and of the pooled ones."""
    return {
        "own": [names[activity] for activity in groups.own],
        "pooled": [names[activity] for activity in groups.pooled],
    }
