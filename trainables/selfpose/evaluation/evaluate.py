"""Evaluates an exported model on one split of a store: metrics, baselines, records, pictures.

Frames and units:
    3D      camera axes (x right, y down, z away from the camera); the truth in millimetres
    2D      crop coordinates in [-1, 1] (x right, y down); centre of pixel i of S at -1 + 2i/(S-1)
Shape letters:
    N frames, J joints, S pixels of an image's side
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from posetune.api import BadInputError, Contest, Evaluation, Progress, silent
from selfpose.data.store import Split, Store, open_store
from selfpose.evaluation.averages import Average, Averager, Averages
from selfpose.evaluation.joint_table import joint_table, score_joints
from selfpose.evaluation.notes import compare_data, drifted_rows, without_drift
from selfpose.evaluation.pictures import draw_pictures
from selfpose.evaluation.scores import Predictions, score_frames, table_rows
from selfpose.evaluation.tables import Header, activity_table, pck_table
from selfpose.inference import PosePredictor, load_model

__all__ = ["evaluate_exported"]

_ROWS_AT_ONCE = 1024
"""Number of rows in one batch."""
_SEED = 0
"""Seed of the frames to which the baselines' constants are fitted. It is fixed so that all models
are compared with the same baselines."""

_MACRO = ("p_mpjpe_mm", "flat_predicted_mm", "lifted_true_mm")
"""Names of the metrics that are averaged over activities, as in validation; the other metrics are
averaged over frames."""
_BASELINES = ("mean_shape", "camera_mean", "flat_depth_true_2d", "depth_flipped_truth")
"""Names of the trivial 3D baselines."""


def evaluate_exported(
    exported: Path, store: Path, split: str, progress: Progress = silent
) -> Evaluation:
    """Evaluate an exported model on every row of a split.

    Args:
        exported: folder of the exported model.
        store: folder of the store.
        split: name of the split: `train`, `val` or `test`.
        progress: hears how many rows are done.

    Returns:
        The evaluation. Its `metrics` are those of validation, named `<split>/...`, and PCK and AUC
        after alignment; if the data has no true 3D poses, there is only `<split>/error_2d_px`.
        Its `baselines` have constants from the training split; `<name>` is the macro average and
        `<name>_frame` the mean over frames. Its `records` have the scores and the origin of each
        row. The module `tables` describes its tables, the module `pictures` its pictures.

    Raises:
        BadInputError: the model, store or split cannot be used, or they do not fit together.
    """
    data = open_store(store)
    rows = _rows_to_evaluate(data, split)
    predictor = load_model(exported)
    if tuple(predictor.joint_names) != data.layout.joints:
        raise BadInputError(
            f"{exported}: the model has the joints of layout {predictor.layout.name}, but {store} "
            f"those of {data.layout.name}; give a store of the model's layout"
        )
    predicted = _predict(predictor, rows, progress=progress)
    scores = score_frames(predicted, rows, store=data, image_size=predictor.image_size, seed=_SEED)
    averager = Averager(rows.activity, rows.motion)
    averages = {name: averager.average(value_n) for name, value_n in scores.items()}
    main = "p_mpjpe_mm" if "p_mpjpe_mm" in scores else "error_2d_px"
    joints = _joint_tables(data, split, predictor=predictor, predicted=predicted, averager=averager)
    drift, drift_notes = without_drift(scores, drifted_rows(data, rows))
    metrics = {f"{split}/{name}": average for name, average in _metrics(averages).items()}
    baselines = _baselines(averages)
    origin = ("activity", "subject", "motion", "camera", "frame")
    return Evaluation(
        metrics={name: average.mean for name, average in metrics.items()},
        baselines={name: average.mean for name, average in baselines.items()},
        records=scores
        | {"group": averager.groups.group_n}
        | {name: getattr(rows, name) for name in origin},
        pictures=draw_pictures(
            data,
            rows,
            predicted=predicted,
            scores=scores,
            image_size=predictor.image_size if _takes_images(predictor) else None,
        ),
        tables=_tables(data, split, predictor=predictor, averages=averages, averager=averager)
        | joints,
        intervals={n: (a.low, a.high) for n, a in {**metrics, **baselines}.items()},
        details=_details(data, averages, averager) | drift,
        notes=[*compare_data(predictor.trained_on, data), *drift_notes],
        contest=_contest(data, main, sees_images=_takes_images(predictor)),
    )


def _metrics(averages: Mapping[str, Averages]) -> dict[str, Average]:
    """Return the metrics of validation (see `metrics.METRICS`) with their intervals."""
    if "p_mpjpe_mm" not in averages:
        return {"error_2d_px": averages["error_2d_px"].frame}
    not_metrics = {"mean_2d_pose_px", *(f"{name}_mm" for name in _BASELINES)}
    found = {
        name: average.macro if name in _MACRO else average.frame
        for name, average in averages.items()
        if name not in not_metrics
    }
    return {**found, "p_mpjpe_frame_mm": averages["p_mpjpe_mm"].frame}


def _baselines(averages: Mapping[str, Averages]) -> dict[str, Average]:
    """Return the trivial baselines with their intervals."""
    found = {"mean_2d_pose_px": averages["mean_2d_pose_px"].frame}
    for name in _BASELINES:
        if f"{name}_mm" in averages:
            found[name] = averages[f"{name}_mm"].macro
            found[f"{name}_frame"] = averages[f"{name}_mm"].frame
    return found


def _details(store: Store, averages: Mapping[str, Averages], averager: Averager) -> dict[str, Any]:
    """Return counts, the pooled activities and every average, as JSON values."""
    names = store.metadata.activities
    counts = averager.counts
    return {
        "format": store.metadata.format,
        "layout": store.layout.name,
        "frames": sum(frames for frames, _ in counts.values()),
        "motions": averager.motions,
        "activities": {
            names[i]: {"frames": frames, "motions": motions, "pooled": i in averager.groups.pooled}
            for i, (frames, motions) in counts.items()
        },
        "averages": {
            column: {
                "macro": asdict(average.macro),
                "frame": asdict(average.frame),
                "activities": {names[i]: asdict(a) for i, a in average.activities.items()},
            }
            for column, average in averages.items()
        },
    }


def _contest(store: Store, main: str, *, sees_images: bool) -> Contest:
    """Return what promotion compares.

    A model that is given true 2D poses predicts none, so its own 2D poses are no rival.
    """
    rivals = {"mean 2D pose": "mean_2d_pose_px"}
    if main == "p_mpjpe_mm":
        rivals = {"mean shape": "mean_shape_mm"}
        if sees_images:
            rivals["own 2D, flat"] = "flat_predicted_mm"
    return Contest(
        score=main,
        unit=main.rpartition("_")[2],
        sees="images" if sees_images else "true 2D poses",
        rivals=rivals,
        activities=store.metadata.activities,
    )


def _tables(
    store: Store,
    split: str,
    *,
    predictor: PosePredictor,
    averages: Mapping[str, Averages],
    averager: Averager,
) -> dict[str, str]:
    """Return the per-activity table, and for MPI-INF-3DHP also the table of PCK and AUC.

    Each is there as Markdown and as CSV, by the file's name.
    """
    is_human36m = store.metadata.format == "human36m"
    header = Header(_source(store, split, predictor), store.metadata.activities, is_human36m)
    has_3d = "p_mpjpe_mm" in averages
    rows = table_rows(has_3d=has_3d, mode=predictor.config.mode)
    markdown, flat = activity_table(rows, averages, averager=averager, header=header)
    tables = {"activities.md": markdown, "activities.csv": flat}
    if has_3d and store.metadata.format == "mpi_inf_3dhp":
        tables["pck.md"], tables["pck.csv"] = pck_table(averages, averager=averager, header=header)
    return tables


def _joint_tables(
    store: Store,
    split: str,
    *,
    predictor: PosePredictor,
    predicted: Predictions,
    averager: Averager,
) -> dict[str, str]:
    """Return the table of joints, as Markdown and as CSV, by the file's name.

    A model that is given true 2D poses has 3D errors only, and none without 3D truth.
    """
    errors = score_joints(
        predicted,
        store.split(split),
        store=store,
        image_size=predictor.image_size,
        seed=_SEED,
    )
    if not _takes_images(predictor):
        errors = {name: error_nj for name, error_nj in errors.items() if name == "p_error_mm"}
    if not errors:
        return {}
    source = _source(store, split, predictor)
    joints = store.layout.joints
    markdown, flat = joint_table(joints, errors, averager=averager, source=source)
    return {"joints.md": markdown, "joints.csv": flat}


def _source(store: Store, split: str, predictor: PosePredictor) -> str:
    """Return the sentence about data, split and model that stands above a table."""
    source = f"Data: {store.metadata.format}, split {split}, store {store.digest[:12]}."
    if _takes_images(predictor):
        return source
    return (
        f"{source} This model is given the TRUE 2D poses: not comparable with one that sees images."
    )


def _rows_to_evaluate(store: Store, name: str) -> Split:
    """Return a split that can be evaluated.

    Raises:
        BadInputError: it is the split `prior`, it has no rows, or there is no such split.
    """
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
    """Return whether a model sees images; a model of lifting mode sees true 2D poses."""
    return predictor.config.mode != "lifting"


def _predict(predictor: PosePredictor, rows: Split, *, progress: Progress) -> Predictions:
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
    return Predictions(*(np.concatenate(p) for p in (parts_2d, parts, parts_true)))
