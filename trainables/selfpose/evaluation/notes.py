"""Says what a reader of an evaluation must know about the data that it was made on.

Training and test data may differ in scale or annotation, and three test sequences of Human3.6M are
known to have shifted poses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfpose.data.formats.human36m_protocol import DRIFTED, DRIFTED_STEMS
from selfpose.data.store import Split, Store

__all__ = ["compare_data", "data_facts", "drifted_rows", "without_drift"]

_COMPARED = ("format", "scale", "annotations", "background")
"""Facts of a store that its evaluation names if they are not those of the training data."""


def data_facts(store: Store) -> dict[str, str]:
    """Return the facts of a store that an exported model keeps, by name."""
    facts = {"format": store.metadata.format, "background": "keep", **store.metadata.facts}
    return {name: facts[name] for name in _COMPARED if name in facts}


def compare_data(trained_on: Mapping[str, str], store: Store) -> list[str]:
    """Return a sentence for each fact in which the training data and a store differ.

    Args:
        trained_on: facts of the training data; empty if the model does not have them.
        store: the store on which the model is evaluated.
    """
    tested_on = data_facts(store)
    return [
        f"{name} differs: the model was trained on {trained_on[name]}, and is evaluated on "
        f"{tested_on[name]}"
        for name in _COMPARED
        if name in trained_on and name in tested_on and trained_on[name] != tested_on[name]
    ]


def drifted_rows(store: Store, rows: Split) -> NDArray[np.bool_]:
    """Return which rows of a split are of Human3.6M's sequences with shifted poses, (N,)."""
    if store.metadata.format != "human36m":
        return np.zeros(len(rows), dtype=bool)
    names = {*DRIFTED, *DRIFTED_STEMS}
    numbers = [i for i, name in enumerate(store.metadata.motions) if name in names]
    return np.isin(rows.motion, numbers)


def without_drift(
    scores: Mapping[str, NDArray[np.float64]], drifted_n: NDArray[np.bool_]
) -> tuple[dict[str, Any], list[str]]:
    """Return the means over frames with and without shifted sequences, and a sentence about them.

    Args:
        scores: columns of scores, (N,) each, by name.
        drifted_n: which rows have shifted poses, (N,).

    Returns:
        JSON values for `details`, and sentences for `notes`; both empty if no row is shifted.
    """
    if not drifted_n.any() or drifted_n.all():
        return {}, []
    means = {
        name: {"all": float(score_n.mean()), "without": float(score_n[~drifted_n].mean())}
        for name, score_n in scores.items()
    }
    main = "p_mpjpe_mm" if "p_mpjpe_mm" in means else "error_2d_px"
    unit = main.rpartition("_")[2]
    sentence = (
        f"{main} over frames: {means[main]['all']:.1f} {unit} with, "
        f"{means[main]['without']:.1f} {unit} without the {int(drifted_n.sum())} frames of S9 "
        "whose poses are known to be shifted (import with --exclude-drift to leave them out)"
    )
    return {"without_drift": {"frames": int((~drifted_n).sum()), "means": means}}, [sentence]
