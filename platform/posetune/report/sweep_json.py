"""Gives a sweep as one JSON object, for machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from posetune.report.findings.importance import Importance, param_importance
from posetune.report.findings.search_notes import health_lines
from posetune.report.tables import changed_params
from posetune.study.budget import kilowatt_hours
from posetune.study.forecasting.forecast import forecast_sweep
from posetune.study.view import SweepView, TrialView

__all__ = ["as_json"]


def as_json(view: SweepView) -> dict[str, Any]:
    """Return the object that `posetune show NAME --json` prints."""
    best = view.best
    epoch, leaders = view.leaders
    found = param_importance(view)
    return {
        "name": view.name,
        "state": view.state,
        "stopped": view.stopped,
        "used_up": view.used_up,
        "waits_for": view.waits_for,
        "objective": view.spec.objective.model_dump(),
        "budget": view.spec.budget.model_dump(),
        "most_trials": view.most_trials,
        "trials": [_trial_json(trial) for trial in view.trials],
        "best": {**_trial_json(best), "metrics": view.best_metrics} if best else None,
        "means": {str(first): mean._asdict() for first, mean in view.means.items()},
        "best_among": {"epoch": epoch, "trials": leaders} if leaders else None,
        "importance": _importance_json(found),
        "baselines": view.baselines,
        "changed": {n: {"default": a, "best": b} for n, (a, b) in changed_params(view).items()},
        "used": {
            "trained_s": round(view.trained_s, 3),
            "gpu_hours": view.gpu_hours if view.spec.resources.gpu else 0.0,
            "trial_hours": round(sum(trial.held_s for trial in view.trials) / 3600, 6),
            "driven_s": round(view.driven_s, 3),
            "energy_kwh": kilowatt_hours(view.energy_j),
        },
        "left_out": view.left_out._asdict(),
        "health": health_lines(view),
        "expected_gain": None if view.gain is None else asdict(view.gain),
        "forecast": _forecast_json(view),
        "stages": {
            name: {"trained": use.trained, "reused": use.reused}
            for name, use in view.stages.items()
        },
        "owner": view.owner,
        "held_by": view.held_by,
        "tags": view.tags,
        "notes": [remark._asdict() for remark in view.remarks],
        "enqueued": list(view.enqueued),
        "waiting_requests": [
            {"act": r.act.kind, "by": r.by, "at": r.at} for r in view.waiting_requests
        ],
        "store": view.store,
        "store_digest": view.store_digest,
        "provenance": _without_diff_text(view.provenance),
    }


def _without_diff_text(provenance: dict[str, Any]) -> dict[str, Any]:
    diff = provenance.get("diff")
    if not isinstance(diff, dict):
        return provenance
    return {**provenance, "diff": {key: value for key, value in diff.items() if key != "text"}}


def _importance_json(found: Importance) -> dict[str, Any] | None:
    if not found.params:
        return None
    return {"epoch": found.epoch, "trials": found.trials, "params": dict(found.params)}


def _trial_json(trial: TrialView) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "params": trial.params,
        "epochs": trial.epochs,
        "value": trial.chosen.value if trial.chosen else None,
        "epoch": trial.chosen.epoch if trial.chosen else None,
        "last_value": trial.value,
        "mlflow_run_id": trial.mlflow_run_id,
        "seconds": round(trial.seconds, 3),
        "energy_kwh": kilowatt_hours(trial.energy_j),
        "attempts": trial.attempts,
        "seed": trial.seed,
        "reason": trial.reason,
        "last_epoch": trial.last_epoch,
        "parent": trial.parent,
        "chosen_by": trial.chosen_by,
        "pinned": trial.is_pinned,
        "tags": trial.tags,
        "notes": [remark._asdict() for remark in trial.remarks],
    }


def _forecast_json(view: SweepView) -> dict[str, Any] | None:
    expected = forecast_sweep(view)
    if expected is None:
        return None
    factor = view.spec.resources.gpus_or_one / 3600
    return {
        "epochs": [expected.epochs.low, expected.epochs.high],
        "driven_s": [expected.wall_s.low, expected.wall_s.high],
        "hours": [expected.held_s.low * factor, expected.held_s.high * factor],
        "ends_by": expected.ends_by,
    }
