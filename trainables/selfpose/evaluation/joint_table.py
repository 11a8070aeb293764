"""Says joint by joint how far a model is off, beside the mean 2D pose: arms are hard, trunks easy.

Frames and units: 2D crop coordinates; 3D camera axes, the truth in mm. Shape letters: N frames,
J joints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfpose.data.store import Split, Store
from selfpose.evaluation.averages import Average, Averager
from selfpose.evaluation.baselines import fit_mean_2d
from selfpose.evaluation.scores import Predictions, truth_3d
from selfpose.evaluation.tables import BOOTSTRAP, interval_text, mean_text, write_csv
from selfpose.method.metrics import joint_distances
from selfpose.method.procrustes import procrustes_align

__all__ = ["joint_table", "score_joints"]

_HEADS = {
    "error_2d_px": "2D error (px, not aligned)",
    "gain_px": "mean 2D pose minus model (px)",
    "p_error_mm": "3D error (mm, P-aligned)",
}


def score_joints(
    predicted: Predictions, rows: Split, *, store: Store, image_size: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Return the errors of every joint in every frame, (N, J) each, by name.

    Args:
        predicted: the model's poses of all rows.
        rows: the split.
        store: the store, to whose training split the mean 2D pose is fitted.
        image_size: side in pixels of the images that the model sees.
        seed: seed of the choice of frames that it is fitted to.

    Returns:
        `error_2d_px`; `gain_px`, by how much the mean 2D pose is farther off than the model; and,
        where there is 3D truth, `p_error_mm`, the distance after a proper similarity transform.
    """
    truth_nj2, truth_nj3 = rows.joints_2d, truth_3d(rows)
    pixels = (image_size - 1) / 2  # in a unit of crop coordinates
    error_nj = pixels * joint_distances(predicted.joints_2d_nj2, truth_nj2)
    mean_nj2 = np.broadcast_to(fit_mean_2d(store, seed=seed), truth_nj2.shape)
    found = {"error_2d_px": error_nj}
    found["gain_px"] = pixels * joint_distances(mean_nj2, truth_nj2) - error_nj
    if truth_nj3 is not None:
        aligned_nj3 = procrustes_align(predicted.poses_nj3, truth_nj3, reflection="never")
        found["p_error_mm"] = joint_distances(aligned_nj3, truth_nj3)
    return found


def joint_table(
    joints: Sequence[str],
    errors: Mapping[str, NDArray[Any]],
    *,
    averager: Averager,
    source: str,
) -> tuple[str, str]:
    """Return the table as Markdown and as CSV: means over frames with their 95 % intervals.

    Args:
        joints: names of the J joints.
        errors: what `score_joints` returned.
        averager: averages over the same frames.
        source: sentence about data, split and model.
    """
    heads = [_HEADS[name] for name in errors]
    text = ["# Errors joint by joint", "", source, ""]
    text += [f"| joint | {' | '.join(heads)} |", f"|{'---|' * (1 + len(heads))}"]
    flat: list[list[object]] = [["joint", "statistic", *heads]]
    for j, joint in enumerate(joints):
        cells = [averager.over_frames(error_nj[:, j]) for error_nj in errors.values()]
        text.append(f"| {joint} | {' | '.join(map(_cell, cells))} |")
        for statistic in ("mean", "low", "high"):
            flat.append([joint, statistic, *(f"{getattr(c, statistic):.4f}" for c in cells)])
    text += ["", f"In brackets the 95 % intervals. {BOOTSTRAP}"]
    return "\n".join(text) + "\n", write_csv(flat)


def _cell(average: Average) -> str:
    return f"{mean_text(average, 2)} ({interval_text(average, 2)})"
