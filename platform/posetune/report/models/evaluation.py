"""Writes an evaluation to disk and shows it on the terminal.

`metrics.json` is written last, so a folder that has it has all the other files too.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from posetune.api import BadInputError, Evaluation
from posetune.storage.digest import digest_folder
from posetune.storage.whole_files import write_whole

__all__ = ["evaluation_facts", "evaluation_table", "write_evaluation"]


def evaluation_facts(
    model: str, folder: Path, *, store: str, store_digest: str, split: str
) -> dict[str, Any]:
    """Return which model is evaluated on which data, by which command.

    Args:
        model: the model's name.
        folder: folder of the exported model.
        store: address of the data.
        store_digest: digest of the data.
        split: name of the split.
    """
    return {
        "model": model,
        "model_digest": digest_folder(folder),
        "store": store,
        "store_digest": store_digest,
        "split": split,
        "command": ["posetune", *sys.argv[1:]],
    }


def write_evaluation(evaluation: Evaluation, folder: Path, facts: Mapping[str, Any]) -> list[Path]:
    """Write tables, pictures, `frames.npz` (every frame's scores) and `metrics.json`.

    Args:
        evaluation: what to write.
        folder: where to write; it is made if it does not exist, and files in it are replaced.
        facts: which model was evaluated on which data; they stand first in `metrics.json`.

    Returns:
        The paths of the written files.

    Raises:
        BadInputError: the folder cannot be written to.
    """
    frames = io.BytesIO()
    columns: dict[str, Any] = dict(evaluation.records)
    np.savez_compressed(frames, **columns)
    content = {
        **facts,
        "notes": list(evaluation.notes),
        "metrics": _with_intervals(evaluation.metrics, evaluation),
        "baselines": _with_intervals(evaluation.baselines, evaluation),
        **evaluation.details,
    }
    files = {
        **{name: text.encode() for name, text in evaluation.tables.items()},
        **evaluation.pictures,
        "frames.npz": frames.getvalue(),
        "metrics.json": (json.dumps(_finite(content), indent=1) + "\n").encode(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_whole(folder / name, data)
    except OSError as error:
        raise BadInputError(
            f"--out {folder}: cannot be written ({error.strerror}); give another folder"
        ) from error
    return [folder / name for name in files]


def evaluation_table(evaluation: Evaluation, title: str) -> Table:
    """Return a table of the metrics and baselines with their intervals, for a terminal."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for values, prefix in ((evaluation.metrics, ""), (evaluation.baselines, "baseline: ")):
        for name, value in values.items():
            low, high = evaluation.intervals.get(name, (math.nan, math.nan))
            span = "-" if math.isnan(low) else f"{low:.4g} to {high:.4g}"
            table.add_row(prefix + name, f"{value:.4g}", span)
        table.add_section()
    return table


def _with_intervals(values: Mapping[str, float], evaluation: Evaluation) -> dict[str, Any]:
    described = {}
    for name, value in values.items():
        low, high = evaluation.intervals.get(name, (math.nan, math.nan))
        described[name] = {"mean": value, "low": low, "high": high}
    return described


def _finite(value: Any) -> Any:
    """Return a value with None for each number that JSON cannot hold (NaN and infinity)."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
