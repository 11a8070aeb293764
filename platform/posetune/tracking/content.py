"""Computes what MLflow is to show of a sweep, as pure functions of the study.

The same events always give the same content, whenever and however often it is computed, so that
shipping can be repeated. That is why metrics and ends of runs have the times of their events.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlflow.entities import Metric
from pydantic import ValidationError

from posetune.home import Home
from posetune.spec.loading import configure, flatten
from posetune.spec.registration import load_trainable
from posetune.spec.sweep import Objective
from posetune.storage.digest import digest_json
from posetune.study.budget import kilowatt_hours, unit
from posetune.study.events import Reported
from posetune.study.forecasting.forecast import Forecast
from posetune.study.records import Remark
from posetune.study.states import SweepStatus, TrialState
from posetune.study.view import SweepView, TrialView
from posetune.tracking.naming import entity_key, param_value, tag_value

__all__ = [
    "BEST_CHECKPOINT_TAG",
    "BEST_EPOCH_METRIC",
    "CHECKPOINT_TAG",
    "PEOPLE_TAG",
    "SECONDS_METRIC",
    "SWEEP_TAG",
    "TRIAL_TAG",
    "best_complete",
    "best_metric",
    "describe_sweep",
    "experiment_name",
    "forecast_tag",
    "report_metrics",
    "run_status",
    "sweep_identity",
    "sweep_metrics",
    "sweep_tags",
    "trial_params",
    "trial_tags",
]

SWEEP_TAG = "posetune.sweep_id"
"""Tag that says which sweep a run belongs to; see `sweep_identity`."""
TRIAL_TAG = "posetune.trial"
"""Tag with the number of a run's trial; the sweep's own run does not have it."""
SECONDS_METRIC = "time/epoch_s"
"""Metric with the seconds of an epoch. Every report has it, even if its objective was no number,
so it tells up to which epoch a run is logged."""

_STATUS = {
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "FINISHED",
    TrialState.FAILED: "FAILED",
    TrialState.STOPPED: "KILLED",
    TrialState.INTERRUPTED: "KILLED",
    TrialState.PAUSED: "RUNNING",
}
_IN_FILES = ("diff.text", "packages")
"""Facts of the provenance that are among the run's files and not among its tags."""
CHECKPOINT_TAG = "posetune.checkpoint."
"""How the names of the tags begin that say where a trial's newest checkpoint lies."""
BEST_CHECKPOINT_TAG = f"{CHECKPOINT_TAG}best."
"""How the names of the tags begin that say where the checkpoint of a trial's best epoch lies."""
BEST_EPOCH_METRIC = "best/epoch"
"""Metric with the epoch that a run's best value is of."""
PEOPLE_TAG = "posetune.tag."
"""How the names of the tags begin that people gave a sweep or a trial."""
NOTES_TAG = "posetune.notes"
"""Tag with what people wrote about a sweep or a trial, the newest first."""
ENERGY_TAG = "posetune.energy_kwh"
"""Tag with the energy of a trial's or a sweep's GPUs, where it was measured."""
_PEOPLE_TAGS = 20
"""Number of tags that people gave which are shown at most."""
_PROVENANCE_TAGS = 50
"""Number of facts of the provenance that become tags at most; MLflow takes 100 tags in one call."""
_SHORT = 200
"""Number of characters of a fact of the provenance that becomes a tag at most."""


def experiment_name(view: SweepView) -> str:
    """Return the name of the experiment that shows a sweep; a trainable's sweeps share one.

    The sweeps of a trainable report the same metrics and params, so the experiment's page compares
    them in one table and one chart, where each sweep is one parent row. With one experiment per
    sweep it could not.
    """
    return f"posetune/{view.spec.trainable}"


def sweep_identity(view: SweepView) -> str:
    """Return an identifier that no other sweep has, in this study database or another."""
    return digest_json([view.name, view.started])[:16]


def run_status(state: TrialState | SweepStatus) -> str:
    """Return MLflow's status for the state of a trial or sweep."""
    return _STATUS[TrialState(state)]


def best_complete(view: SweepView) -> TrialView | None:
    """Return the best trial among those that ran all their epochs."""
    return next((trial for trial in view.ranked if trial.state == TrialState.COMPLETE), None)


# -- a trial ---------------------------------------------------------------------------------


def trial_tags(view: SweepView, trial: TrialView, *, home: Home) -> dict[str, str]:
    """Return the tags of a trial's run.

    Args:
        view: the sweep.
        trial: the trial.
        home: where checkpoints are.
    """
    tags = {
        "posetune.sweep": view.name,
        "posetune.state": trial.state.lower(),
        "posetune.select": view.spec.objective.select,
        "posetune.reason": trial.reason,
        "posetune.epochs": trial.epochs,
        "posetune.attempts": trial.attempts,
        "posetune.seed": trial.seed,
        "posetune.threads": max(1, int(view.spec.resources.cpu)),
        "posetune.store_digest": view.store_digest,
        "mlflow.note.content": describe_trial(view, trial, home),
    }
    tags |= {entity_key(f"posetune.{fact}"): value for fact, value in trial.placement.items()}
    if trial.checkpoint is not None:
        tags |= {
            f"{CHECKPOINT_TAG}uri": home.storage.uri(trial.checkpoint.folder),
            f"{CHECKPOINT_TAG}epoch": trial.checkpoint.epoch,
            f"{CHECKPOINT_TAG}digest": trial.checkpoint.digest,
            f"{CHECKPOINT_TAG}bytes": trial.checkpoint.bytes,
        }
    best = trial.checkpoint_of(trial.improvements[-1].epoch) if trial.improvements else None
    if best is not None:
        tags |= {
            f"{BEST_CHECKPOINT_TAG}uri": home.storage.uri(best.folder),
            f"{BEST_CHECKPOINT_TAG}epoch": best.epoch,
            f"{BEST_CHECKPOINT_TAG}digest": best.digest,
        }
    tags |= {entity_key(f"posetune.stage.{stage}"): key for stage, key in trial.stages.items()}
    tags |= _steering_tags(trial.tags, trial.remarks)
    if trial.energy_j is not None:
        tags[ENERGY_TAG] = kilowatt_hours(trial.energy_j)
    if trial.chosen_by:
        tags["posetune.chosen_by"] = trial.chosen_by
    if trial.parent is not None:
        tags["posetune.parent_trial"] = trial.parent
    if trial.stopped_by:
        tags["posetune.stopped_by"] = trial.stopped_by
    if trial.is_pinned:
        tags["posetune.pinned"] = "true"
    return {name: tag_value(value) for name, value in tags.items()}


def trial_params(view: SweepView, trial: TrialView) -> dict[str, str]:
    """Return the complete configuration of a trial by dotted name.

    If the trainable's fields have changed since the sweep, only the fields are returned that the
    sweep file and the trial's parameters name.
    """
    model = load_trainable(view.spec.trainable).config_model
    config: dict[str, Any]
    try:
        config = configure(model, view.spec.fixed, trial.params).model_dump(mode="json")
    except (ValidationError, TypeError):
        config = {**view.spec.fixed, **trial.params}
    return {entity_key(name): param_value(value) for name, value in flatten(config).items()}


def report_metrics(view: SweepView, trial: TrialView, reports: Iterable[Reported]) -> list[Metric]:
    """Return the metrics of reports, one step per epoch; values that are no numbers are left out.

    Where the best epoch counts, an epoch at which the trial stood better than ever before also has
    the best value so far and itself as metrics.

    Args:
        view: the sweep.
        trial: the trial that reported.
        reports: reports that were read with their metrics.
    """
    objective = view.spec.objective
    improved = dict(trial.improvements) if objective.select == "best" else {}
    metrics = []
    for report in reports:
        values = {entity_key(name): value for name, value in (report.metrics or {}).items()}
        values[SECONDS_METRIC] = report.seconds
        if report.epoch in improved:
            values[best_metric(objective)] = improved[report.epoch]
            values[BEST_EPOCH_METRIC] = report.epoch
        metrics += [
            Metric(name, float(value), _milliseconds(report.at), report.epoch)
            for name, value in values.items()
            if value is not None and math.isfinite(value)
        ]
    return metrics


# -- the sweep -------------------------------------------------------------------------------


def sweep_tags(view: SweepView, home: Home) -> dict[str, str]:
    """Return the tags of the sweep's own run."""
    best = _best(view)
    tags: dict[str, Any] = {
        "posetune.sweep": view.name,
        "posetune.state": view.state.lower(),
        "posetune.reason": view.stopped,
        "posetune.objective": f"{view.spec.objective.metric} ({view.spec.objective.mode})",
        "posetune.select": view.spec.objective.select,
        "posetune.trials": len(view.trials),
        "posetune.seed": view.spec.sampler.seed,
        "posetune.resources.cpu": view.spec.resources.cpu,
        "posetune.resources.gpu": view.spec.resources.gpu,
        "posetune.store": view.store,
        "posetune.store_digest": view.store_digest,
        "mlflow.note.content": describe_sweep(view, home),
    }
    if best is not None and best.chosen is not None:
        tags |= {
            "posetune.best_trial": best.number,
            "posetune.best_epoch": best.chosen.epoch,
            "posetune.best_value": best.chosen.value,
        }
    tags |= _steering_tags(view.tags, view.remarks)
    if view.energy_j is not None:
        tags[ENERGY_TAG] = kilowatt_hours(view.energy_j)
    if view.owner:
        tags["posetune.owner"] = view.owner
    if view.held_by:
        tags["posetune.held_by"] = view.held_by
    tags |= _provenance_tags(view)
    return {name: tag_value(value) for name, value in tags.items()}


def forecast_tag(view: SweepView, expected: Forecast | None) -> dict[str, str]:
    """Return the tag that forecasts a running sweep's epochs, hours and end, as 80 % intervals.

    The tag is emptied once the sweep does not run. Without a new forecast nothing is returned, so
    the tag keeps its text. It is a tag and not a metric because only the last forecast counts, and
    because it says on how many reports it is based.

    Args:
        view: the sweep.
        expected: the latest forecast; None if there is no new one.
    """
    if view.state != SweepStatus.RUNNING:
        return {"posetune.forecast": ""}
    if expected is None:
        return {}
    hours = view.spec.resources.gpus_or_one / 3600
    ends = ", ".join(f"{name} {share:.0%}" for name, share in expected.ends_by.items())
    text = (
        f"the whole with 80 % (reports so far: {expected.reports}): {expected.epochs.low:.0f} to "
        f"{expected.epochs.high:.0f} epochs, {expected.held_s.low * hours:.3g} to "
        f"{expected.held_s.high * hours:.3g} {unit(view.spec)}, {expected.wall_s.low / 3600:.3g} "
        f"to {expected.wall_s.high / 3600:.3g} hours by the clock; ended by {ends}"
    )
    return {"posetune.forecast": tag_value(text)}


def _steering_tags(tags: Mapping[str, str], remarks: Sequence[Remark]) -> dict[str, Any]:
    """Return what people have tagged and noted, as tags; at most so many, the newest notes first.

    A tag without a value has the value `true`, because MLflow shows no empty tags.
    """
    shown: dict[str, Any] = {
        entity_key(f"{PEOPLE_TAG}{name}"): value or "true"
        for name, value in list(tags.items())[:_PEOPLE_TAGS]
    }
    if remarks:
        newest = reversed(remarks)
        shown[NOTES_TAG] = "\n".join(f"{remark.by}: {remark.text}" for remark in newest)
    return shown


def _provenance_tags(view: SweepView) -> dict[str, Any]:
    """Return the facts of the provenance that are short enough for a tag; files have all facts."""
    tags: dict[str, Any] = {}
    for name, value in flatten(view.provenance).items():
        if name in _IN_FILES or len(str(value)) > _SHORT or len(tags) >= _PROVENANCE_TAGS:
            continue
        tags[entity_key(f"posetune.{name}")] = value
        if name == "commit":
            tags["mlflow.source.git.commit"] = value
    return tags


def sweep_metrics(view: SweepView) -> list[Metric]:
    """Return the best value so far, with its epoch, and the baselines at step 0.

    The step of a best value is the number of reports that all trials had made by then. Where the
    last epoch counts, only complete trials count, and the step is the number of ended trials.
    """
    objective = view.spec.objective
    unit = load_trainable(view.spec.trainable).metrics[objective.metric].unit
    metrics = [
        Metric(
            entity_key(f"baseline/{name}_{unit}".rstrip("_")), value, _milliseconds(view.started), 0
        )
        for name, value in view.baselines.items()
    ]
    name = best_metric(objective)
    if objective.select == "best":
        for found in view.bests:
            at = _milliseconds(found.at)
            metrics.append(Metric(name, found.value, at, found.reports))
            metrics.append(Metric(BEST_EPOCH_METRIC, float(found.epoch), at, found.reports))
        return metrics
    best = None
    for step, number in enumerate(view.ended, start=1):
        trial = view.trials[number]
        if trial.state != TrialState.COMPLETE or trial.value is None or trial.ended is None:
            continue
        best = trial.value if best is None else objective.best((best, trial.value))
        metrics.append(Metric(name, best, _milliseconds(trial.ended), step))
    return metrics


def best_metric(objective: Objective) -> str:
    """Return the name of the metric with the best value so far, of a trial or of the sweep."""
    return entity_key(f"best/{objective.metric}")


def _best(view: SweepView) -> TrialView | None:
    """Return the best trial of a sweep; where the last epoch counts, only of complete ones."""
    return view.best if view.spec.objective.select == "best" else best_complete(view)


def describe_trial(view: SweepView, trial: TrialView, home: Home) -> str:
    """Return the Markdown that the page of a trial's run begins with."""
    objective = view.spec.objective
    rows = [f"| baseline: {name} | {value:.4g} |" for name, value in view.baselines.items()]
    if trial.chosen is not None:
        after = f"after {trial.chosen.epoch} of {trial.last_epoch} epochs"
        rows.insert(0, f"| **trial {trial.number}, {after}** | **{trial.chosen.value:.4g}** |")
    command = ["posetune", "reproduce", f"{view.name}/{trial.number}", "--home", str(home.folder)]
    return (
        f"{trial.state.lower()}{': ' if trial.reason else ''}{trial.reason}\n\n"
        f"| | {objective.metric} ({objective.better_word} is better) |\n|---|---:|\n"
        + "\n".join(rows)
        + "\n\nThis trains it again from its record and says whether the result agrees:\n\n"
        + f"```\n{shlex.join(command)}\n```"
    )


def describe_sweep(view: SweepView, home: Home) -> str:
    """Return the Markdown that the page of the sweep's run begins with."""
    metric, mode = view.spec.objective.metric, view.spec.objective.mode
    best = _best(view)
    rows = [f"| baseline: {name} | {value:.4g} |" for name, value in view.baselines.items()]
    if best is not None and best.chosen is not None:
        at = f"trial {best.number} after epoch {best.chosen.epoch}"
        rows.insert(0, f"| **best: {at}** | **{best.chosen.value:.4g}** |")
    states = Counter(trial.state.lower() for trial in view.trials)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    parts = [
        f"| | {metric} ({'lower' if mode == 'min' else 'higher'} is better) |\n|---|---:|\n"
        + "\n".join(rows or ["| there is no value yet | |"]),
        f"{len(view.trials)} of {view.most_trials} trials: {counts or 'none yet'}.",
    ]
    if best is not None:
        shown = ", ".join(f"`{name}` = {value}" for name, value in best.params.items())
        parts.append(f"Parameters of trial {best.number}: {shown}.")
    command = ["posetune", "sweep", "sweep.yaml", "--name", view.name, "--store", view.store]
    command += ["--home", str(home.folder)]
    parts.append(
        "`sweep.yaml` is among this run's artifacts. This continues the sweep, and repeats it "
        f"under another name:\n\n```\n{shlex.join(command)}\n```"
    )
    return "\n\n".join(parts)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
