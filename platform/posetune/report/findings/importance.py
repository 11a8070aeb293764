"""Estimates which parameters mattered, from trials that are compared after equally many epochs.

Most trials of a sweep are cut early, so the last values of all trials are not comparable, and the
complete trials alone are few and not a fair sample. Here the trials that reached one rung are
compared by their values at that rung's epoch, whether they were cut there, later or never; the
result says which epoch that is and how many trials were compared.

Source: Watanabe et al., PED-ANOVA (IJCAI 2023), as implemented by Optuna.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

from posetune.study.search.rungs import rung_epochs
from posetune.study.view import SweepView

__all__ = ["Importance", "matched_values", "param_importance"]

FEWEST_TRIALS = 10
"""Number of trials below which no importance is estimated, however few parameters there are."""
TRIALS_PER_PARAM = 2
"""Number of trials per searched parameter below which no importance is estimated."""
TOP_SHARE = 0.1
"""Share of the trials that count as good; they are compared with all others."""
TOP_TRIALS = 5
"""Number of trials that count as good at least, where `TOP_SHARE` would be fewer."""


@dataclass(frozen=True)
class Importance:
    """Says how much of the difference between good and other trials each parameter explains."""

    epoch: int = 0
    """Number of epochs after which the trials are compared."""
    trials: int = 0
    """Number of trials that are compared."""
    params: Mapping[str, float] = field(default_factory=dict)
    """Share of each parameter, largest first; the shares add up to 1. It is empty if the
    importance cannot be estimated."""
    reason: str = ""
    """Why the importance cannot be estimated; empty if it can."""


def param_importance(view: SweepView) -> Importance:
    """Return the importance at the highest rung that enough trials have reached."""
    enough = max(FEWEST_TRIALS, TRIALS_PER_PARAM * len(view.spec.search))
    values = _values_at_rungs(view)
    reached = [epoch for epoch in sorted(values) if len(values[epoch]) >= enough]
    if not reached:
        most = max((len(found) for found in values.values()), default=0)
        return Importance(
            reason=f"{most} trials have reached a rung, {enough} are needed", trials=most
        )
    epoch = reached[-1]
    compared = values[epoch]
    if len(set(compared.values())) == 1:
        return Importance(
            epoch, len(compared), reason=f"all have the same value after {epoch} epochs"
        )
    return Importance(epoch, len(compared), _shares(view, compared))


def matched_values(view: SweepView) -> tuple[int, dict[int, float]]:
    """Return an epoch and the value of each trial that reached it, by the trial's number.

    It is the epoch at which the importance compares trials, or the first rung if the importance
    cannot be estimated.
    """
    values = _values_at_rungs(view)
    epoch = param_importance(view).epoch or min(values)
    return epoch, values[epoch]


def _values_at_rungs(view: SweepView) -> dict[int, dict[int, float]]:
    """Return the value of each trial at each rung and at the last epoch, by epoch and trial."""
    pruner = view.spec.pruner
    values: dict[int, dict[int, float]] = {
        epoch: {} for epoch in [*rung_epochs(pruner), pruner.max_epochs]
    }
    for report in view.reports:
        if report.epoch in values and report.value is not None:
            values[report.epoch][report.trial] = report.value
    return values


def _shares(view: SweepView, compared: Mapping[int, float]) -> dict[str, float]:
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    from posetune.study.search.sampler import distributions

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = distributions(view.spec)
    study = optuna.create_study(
        direction=view.spec.objective.direction,
        storage=optuna.storages.InMemoryStorage(),
    )
    for number, value in compared.items():
        params = view.trials[number].params
        study.add_trial(
            optuna.create_trial(value=value, params=dict(params), distributions=dict(space))
        )
    top = max(TOP_SHARE, min(0.5, TOP_TRIALS / len(compared)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns of few trials; `reason` says so here
        shares = get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(target_quantile=top)
        )
    return {name: float(share) for name, share in shares.items()}
