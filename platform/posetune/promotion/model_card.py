"""Writes the model card of a version: what a stranger must know before using the model.

The card is Markdown from `templates/model_card.md`. It is the version's description in the
registry, where MLflow shows it, and a file of the sweep's run.
"""

from __future__ import annotations

import functools
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from posetune.api import (
    BadInputError,
    Evaluation,
    Predictor,
    StoreSummary,
    Trainable,
    input_notes,
)
from posetune.promotion.aliases import decision_text
from posetune.promotion.registry import Candidate
from posetune.promotion.request import Promotion, Request
from posetune.report.wording import format_seconds
from posetune.spec.sweep import SweepSpec
from posetune.storage import open_folder
from posetune.study.budget import energy_in_words, unit

__all__ = ["cost_text", "model_card"]


def model_card(
    candidate: Candidate,
    decision: Promotion,
    result: Evaluation | None,
    *,
    trainable: type[Trainable],
    store: str,
    request: Request,
) -> str:
    """Return the card of a version.

    Args:
        candidate: the trial that the version is of.
        decision: what was decided about it.
        result: its evaluation on the test split; None if that was not opened.
        trainable: the class that the sweep file names.
        store: address of the sweep's data on this machine.
        request: what was asked for, with the cost of a GPU-hour.
    """
    view = candidate.view
    predictor = trainable.load_model(candidate.model.folder)
    score = view.spec.objective.metric.rpartition("/")[2]
    command = ["posetune", "reproduce", f"{view.name}/{candidate.trial.number}"]
    return _template().render(
        model=decision.model,
        version=decision.version,
        about=candidate.description,
        side=predictor.image_size,
        refusal=_refusal(predictor),
        input_notes=input_notes(predictor),
        joints=list(predictor.joint_names),
        metrics=_metrics(result),
        activities=_activities(result, score),
        score=score,
        metric=view.spec.objective.metric,
        whole_value=_number(decision.whole_value),
        gate=decision_text(decision),
        data=_data(candidate, trainable, store),
        made=_made(candidate, request),
        limits=_limits(result),
        command=shlex.join(command),
    )


def _refusal(predictor: Predictor) -> str:
    """Return why a model refuses images, such as one that begins with 2D poses; empty otherwise."""
    side = predictor.image_size
    try:
        predictor(np.zeros((1, side, side, 3), np.uint8))
    except BadInputError as error:
        return str(error)
    return ""


@functools.cache
def _template() -> Template:
    environment = Environment(  # Markdown is no HTML: escaping would be seen
        loader=PackageLoader("posetune.promotion"),
        autoescape=False,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md")


def _metrics(result: Evaluation | None) -> list[dict[str, str]]:
    if result is None:
        return []
    named = {**result.metrics, **{f"baseline: {n}": v for n, v in result.baselines.items()}}
    return [
        _row(name, value, result.intervals.get(name.removeprefix("baseline: ")))
        for name, value in named.items()
    ]


def _activities(result: Evaluation | None, score: str) -> list[dict[str, str]]:
    averages = (result.details if result else {}).get("averages", {}).get(score, {})
    return [
        _row(name, found["mean"], (found["low"], found["high"]))
        for name, found in averages.get("activities", {}).items()
    ]


def _row(name: str, value: float | None, ends: Sequence[float | None] | None) -> dict[str, str]:
    low, high = ends or (None, None)
    known = None not in (low, high) and not any(math.isnan(end) for end in (low, high) if end)
    interval = f"{_number(low)} to {_number(high)}" if known else "-"
    return {"name": name, "value": _number(value), "interval": interval}


def _data(candidate: Candidate, trainable: type[Trainable], store: str) -> Mapping[str, str]:
    view = candidate.view
    facts = {"digest": view.store_digest[:12], "what the import left out": candidate.data_quality}
    summary = _summary(trainable, store)
    if summary is None:
        return {**facts, "licence": "not known: the data is not at hand"}
    rows = ", ".join(f"{split} {count}" for split, count in summary.rows.items())
    shown = {name: value.replace("\n", "; ") for name, value in summary.facts.items()}
    facts["what the import left out"] = candidate.data_quality.replace("\n", "; ")
    return {**shown, "rows": rows, **facts}


def _summary(trainable: type[Trainable], store: str) -> StoreSummary | None:
    try:
        return trainable.describe_store(open_folder(store))
    except BadInputError:
        return None


def _made(candidate: Candidate, request: Request) -> Mapping[str, Any]:
    view, trial = candidate.view, candidate.trial
    gpus = view.spec.resources.gpus_or_one
    return {
        "trainable": view.spec.trainable,
        "parameters": ", ".join(f"{name} {value}" for name, value in trial.params.items()),
        "epoch": f"{candidate.model.epoch} of {trial.last_epoch}",
        "seed": f"{trial.seed} (of the sweep: {view.spec.sampler.seed})",
        "code": str(view.provenance.get("commit", "not known")),
        "machine": trial.placement.get("device") or view.provenance.get("processor", "not known"),
        "training of this trial": format_seconds(trial.seconds),
        "cost of this trial": cost_text(trial.held_s * gpus / 3600, view.spec, request),
        "cost of the whole sweep": cost_text(view.gpu_hours, view.spec, request),
        "energy of this trial": energy_in_words(trial.energy_j, view.spec) or "not measured",
        "energy of the whole sweep": energy_in_words(view.energy_j, view.spec) or "not measured",
    }


def cost_text(hours: float, spec: SweepSpec, request: Request) -> str:
    """Return hours of GPUs, and what they cost where that is known."""
    text = f"{hours:.3g} {unit(spec)}"
    if request.cost_per_gpu_hour is None or not spec.resources.gpu:
        return text
    return f"{text}, {hours * request.cost_per_gpu_hour:.2f} {request.currency}".strip()


def _limits(result: Evaluation | None) -> list[str]:
    limits = [
        "It sees one person in one square picture; it finds nobody in a larger one.",
        "It knows no absolute size and no place in the room.",
        "Where its data has no people, clothes, views or rooms like yours, nothing is known of it.",
    ]
    return [*limits, *(result.notes if result is not None else ())]


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4g}"
