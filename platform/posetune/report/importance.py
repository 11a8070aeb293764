"""Which parameters mattered, at matched fidelity.

Most trials of a sweep are cut early, so the last values of all trials are not comparable, and the
complete trials alone are few and chosen. Here the trials that reached one rung are compared by
their values at that rung's epoch, whether they were cut there, later or never; the result says at
which epoch and on how many trials it rests.

Source: Watanabe et al., PED-ANOVA (IJCAI 2023), as implemented by Optuna.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

from posetune.study.rungs import rung_epochs
from posetune.study.view import SweepView

__all__ = ["Importance", "matched_values", "param_importance"]

FEWEST_TRIALS = 10
TRIALS_PER_PARAM = 2
TOP_SHARE, TOP_TRIALS = 0.1, 5
"""The best tenth is held against the rest, but at least this many trials."""


@dataclass(frozen=True)
class Importance:
    """How much of the difference between good and other trials each parameter explains."""

    epoch: int = 0
    """All trials are compared after this many epochs."""
    trials: int = 0
    """The number of trials compared."""
    params: Mapping[str, float] = field(default_factory=dict)
    """Shares that add up to 1, largest first; empty where nothing can be said."""
    reason: str = ""
    """Why nothing can be said."""


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
    """Return an epoch, and for each trial that reached it its value there.

    It is the epoch that the importance rests on; the first rung where that cannot be told.
    """
    values = _values_at_rungs(view)
    epoch = param_importance(view).epoch or min(values)
    return epoch, values[epoch]


def _values_at_rungs(view: SweepView) -> dict[int, dict[int, float]]:
    """Return for each epoch at which trials are compared the value of each trial there."""
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

    from posetune.study.sampler import distributions

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = distributions(view.spec)
    study = optuna.create_study(
        direction="minimize" if view.spec.objective.mode == "min" else "maximize",
        storage=optuna.storages.InMemoryStorage(),
    )
    for number, value in compared.items():
        params = view.trials[number].params
        study.add_trial(
            optuna.create_trial(value=value, params=dict(params), distributions=dict(space))
        )
    top = max(TOP_SHARE, min(0.5, TOP_TRIALS / len(compared)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of is said by `reason` and `trials`
        shares = get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(target_quantile=top)
        )
    return {name: float(share) for name, share in shares.items()}
