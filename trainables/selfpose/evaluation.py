"""How good an exported model is on one split of a store: metrics, baselines, records, pictures.

Frames and units:
    3D      camera axes (x right, y down, z away from the camera); the truth in millimetres
    2D      crop coordinates in [-1, 1] (x right, y down); centre of pixel i of S at -1 + 2i/(S-1)
Shape letters:
    N frames, J joints, S pixels of an image's side
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posetune.api import BadInputError, Evaluation, Progress, silent
from selfpose.baselines import fit_constants, score_poses
from selfpose.data.store import Split, Store, open_store
from selfpose.figures import SheetRow, draw_sheet
from selfpose.inference import PosePredictor, load_model
from selfpose.metrics import error_2d_px, group_activities, n_mpjpe, p_mpjpe, validation_metrics

__all__ = ["evaluate_exported"]

_ROWS_AT_ONCE = 1024
_PICTURES_OF_EACH_KIND = 2
# The baselines' constants and the random rows of the sheet are the same for every model.
_SEED = 0


@dataclass(frozen=True)
class _Predictions:
    """What a model makes of the rows of a split."""

    joints_2d_nj2: NDArray[np.float32]
    """Crop coordinates; the true 2D poses for a model that takes those instead of images."""
    poses_nj3: NDArray[np.float32]
    """Camera axes, root at 0, mean limb length 1."""
    lifted_true_nj3: NDArray[np.float32]
    """The same, lifted from the true 2D poses."""


def evaluate_exported(
    exported: Path, store: Path, split: str, progress: Progress = silent
) -> Evaluation:
    """Evaluate an exported model on every row of a split.

    Args:
        exported: the folder of the exported model.
        store: the store.
        split: `train`, `val` or `test`.
        progress: is told the number of rows done.

    Returns:
        `metrics`: as in validation, named `<split>/...`. `baselines`: as `score_poses` gives
        them, with constants from the training split. `records`: errors and origin of each row.
        `pictures`: `poses.png`, a sheet of the best, median and worst rows and of random ones.

    Raises:
        BadInputError: model, store or split cannot be used, or do not fit together.
    """
    data = open_store(store)
    rows = _rows_with_truth(data, split)
    predictor = load_model(exported)
    if tuple(predictor.joint_names) != data.layout.joints:
        raise BadInputError(
            f"{exported}: the model has the joints of layout {predictor.layout.name}, but {store} "
            f"those of {data.layout.name}; give a store of the model's layout"
        )
    predicted = _predict(predictor, rows, progress=progress)
    metrics = validation_metrics(
        predicted.poses_nj3,
        rows.joints_3d,
        predicted_2d_nj2=predicted.joints_2d_nj2,
        truth_2d_nj2=rows.joints_2d,
        lifted_true_nj3=predicted.lifted_true_nj3,
        activity_n=rows.activity,
        motion_n=rows.motion,
        layout=data.layout,
        image_size=predictor.image_size,
    )
    records = _records(predicted, rows, root=data.layout.root, image_size=predictor.image_size)
    sheet = [
        _sheet_row(kind, row, rows=rows, predicted=predicted, store=data)
        for kind, row in _choose_rows(records["p_mpjpe_mm"], rows.motion)
    ]
    return Evaluation(
        metrics={f"{split}/{name.removeprefix('val/')}": value for name, value in metrics.items()},
        baselines=_baselines(data, rows),
        records=records,
        pictures={"poses.png": draw_sheet(sheet, layout=data.layout)},
    )


def _rows_with_truth(store: Store, name: str) -> Split:
    """Return a split that holds true 3D poses."""
    if name == "prior":
        raise BadInputError(
            f"{store.root}: split prior holds 2D poses only and cannot be evaluated; give test, "
            "val or train"
        )
    rows = store.split(name)
    if not len(rows):
        raise BadInputError(f"{store.root}: split {name} has no rows: import more data")
    return rows


def _takes_images(predictor: PosePredictor) -> bool:
    """Tell whether a model sees images; one trained in lifting mode sees true 2D poses."""
    return predictor.config.mode != "lifting"


def _predict(predictor: PosePredictor, rows: Split, *, progress: Progress) -> _Predictions:
    """Run a model over a split in batches."""
    parts_2d, parts, parts_true = [], [], []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        batch = np.arange(start, min(start + _ROWS_AT_ONCE, len(rows)))
        truth_bj2 = rows.joints_2d[batch]
        lifted_true_bj3 = predictor.lift(truth_bj2)
        parts_true.append(lifted_true_bj3)
        if _takes_images(predictor):
            joints_bj2 = predictor.joints_2d(rows.images(batch))
            parts_2d.append(joints_bj2)
            parts.append(predictor.lift(joints_bj2))
        else:
            parts_2d.append(truth_bj2)
            parts.append(lifted_true_bj3)
        progress(int(batch[-1]) + 1, len(rows), "rows")
    return _Predictions(*(np.concatenate(p) for p in (parts_2d, parts, parts_true)))


def _records(
    predicted: _Predictions, rows: Split, *, root: int, image_size: int
) -> dict[str, NDArray[Any]]:
    """Return one column per error and per origin, one entry per row."""
    poses_nj3, truth_nj3 = predicted.poses_nj3, rows.joints_3d
    return {
        "p_mpjpe_mm": p_mpjpe(poses_nj3, truth_nj3),
        "p_mpjpe_mirrored_mm": p_mpjpe(poses_nj3, truth_nj3, reflection="best"),
        "n_mpjpe_mm": n_mpjpe(poses_nj3, truth_nj3, root=root),
        "error_2d_px": error_2d_px(predicted.joints_2d_nj2, rows.joints_2d, image_size=image_size),
        "activity": rows.activity,
        "subject": rows.subject,
        "motion": rows.motion,
        "camera": rows.camera,
        "frame": rows.frame,
    }


def _baselines(store: Store, rows: Split) -> dict[str, float]:
    """Return the trivial 3D baselines on a split, mm."""
    return score_poses(
        fit_constants(store, seed=_SEED),
        truth_3d_nj3=rows.joints_3d,
        truth_2d_nj2=rows.joints_2d,
        groups=group_activities(rows.activity, rows.motion),
    )


def _choose_rows(error_n: NDArray[Any], motion_n: NDArray[Any]) -> list[tuple[str, int]]:
    """Choose the rows to draw: (kind, row), each kind from different motions where it can be."""
    by_error = np.argsort(error_n, kind="stable")
    from_median = np.argsort(np.abs(np.arange(len(error_n)) - len(error_n) // 2), kind="stable")
    orders = {
        "best": by_error,
        "median": by_error[from_median],
        "worst": by_error[::-1],
        "random": np.random.default_rng(_SEED).permutation(len(error_n)),
    }
    chosen = []
    for kind, order in orders.items():
        _, first_of_motion = np.unique(motion_n[order], return_index=True)
        places = np.sort(first_of_motion)[:_PICTURES_OF_EACH_KIND]
        chosen += [(kind, int(row)) for row in order[places]]
    return chosen


def _sheet_row(
    kind: str, row: int, *, rows: Split, predicted: _Predictions, store: Store
) -> SheetRow:
    """Return what the sheet shows of one row."""
    return SheetRow(
        label=f"{kind}\n{store.metadata.activities[rows.activity[row]]}",
        image_ss3=rows.images([row])[0],
        joints_2d_j2=predicted.joints_2d_nj2[row],
        truth_3d_j3=rows.joints_3d[row],
        predicted_3d_j3=predicted.poses_nj3[row],
    )
