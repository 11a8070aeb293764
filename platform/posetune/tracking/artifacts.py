"""Uploads the files that MLflow keeps: a sweep's file and provenance, a complete trial's model.

A checkpoint's `state/` is never uploaded. It is large and only needed to resume, so it stays in
storage, and the run's tags say where.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from mlflow import MlflowClient

from posetune.home import Home
from posetune.spec.sweep import Objective
from posetune.storage.digest import digest_json
from posetune.study.events import Reported
from posetune.study.view import SweepView, TrialView
from posetune.tracking.server.connection import patiently

__all__ = ["ABSENT", "draw_learning_curve", "sweep_files", "trial_parts", "upload"]

ABSENT = "absent"
"""Stands for the digest of a checkpoint that is not in storage, or not any more."""


def sweep_files(view: SweepView) -> tuple[str, dict[str, str]]:
    """Return a digest of all files of the sweep's own run, and their texts by name."""
    files = {"sweep.yaml": view.source}
    provenance = dict(view.provenance)
    diff = dict(provenance.get("diff", {}))
    if "text" in diff:
        files["code.diff"] = diff.pop("text")
        provenance["diff"] = {**diff, "file": "code.diff"}
    if "packages" in provenance:
        files["packages.txt"] = "".join(f"{line}\n" for line in provenance.pop("packages"))
    files["provenance.json"] = json.dumps(provenance, indent=2, sort_keys=True)
    return digest_json(files), files


def trial_parts(home: Home, trial: TrialView) -> tuple[str, list[str]]:
    """Return the digest of a complete trial's checkpoint, and its folders to upload.

    Args:
        home: where checkpoints are.
        trial: the trial.

    Returns:
        The digest, or `ABSENT`, and the names of the folders in storage. The model is not among
        them where an earlier epoch counts: the run names that epoch, and this one's model would be
        taken for its.
    """
    if trial.checkpoint is None:
        return ABSENT, []
    folder = trial.checkpoint.folder
    is_chosen = trial.chosen is None or trial.chosen.epoch == trial.checkpoint.epoch
    names = ("model", "figures") if is_chosen else ("figures",)
    there = home.storage.children(folder)
    parts = [f"{folder}/{name}" for name in names if name in there]
    return (trial.checkpoint.digest, parts) if parts else (ABSENT, [])


def upload(
    client: MlflowClient,
    run_id: str,
    *,
    texts: Mapping[str, str] | None = None,
    folders: Sequence[Path] = (),
    figures: Mapping[str, Figure] | None = None,
) -> None:
    """Upload files to a run; files that it has under the same names are replaced.

    Args:
        client: of the tracking store.
        run_id: the run.
        texts: text files by name.
        folders: folders of this machine; each is uploaded under its own name.
        figures: figures by the name of the file.
    """
    for name, text in (texts or {}).items():
        patiently(lambda n=name, t=text: client.log_text(run_id, t, n))  # type: ignore[misc]
    for folder in folders:
        patiently(lambda f=folder: client.log_artifacts(run_id, str(f), f.name))  # type: ignore[misc]
    for name, figure in (figures or {}).items():
        patiently(lambda n=name, f=figure: client.log_figure(run_id, f, n))  # type: ignore[misc]


def draw_learning_curve(
    objective: Objective, reports: Sequence[Reported], baselines: Mapping[str, float]
) -> Figure:
    """Draw a trial's objective over its epochs, with the baselines as horizontal lines."""
    points = [(report.epoch, report.value) for report in reports]
    known = [(epoch, value) for epoch, value in points if value is not None]
    figure = Figure(figsize=(6, 4))  # a layout engine doubles the time to draw
    axes = figure.add_subplot()
    axes.plot(*zip(*known, strict=True), marker="o", markersize=3, label="this trial")
    for i, (name, value) in enumerate(baselines.items()):
        axes.axhline(value, color=f"C{i + 1}", linestyle="--", linewidth=1, label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel(objective.metric)
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    return figure
