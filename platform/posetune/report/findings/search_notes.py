"""Says how the search goes: why trials are paused, and what looks wrong, each with its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from posetune.report.findings.importance import param_importance
from posetune.report.leaderboard import FEW
from posetune.report.wording import count_epochs, format_value
from posetune.spec.parameters import Choice, FloatRange, IntRange, Scalar
from posetune.study.budget import gain_in_words
from posetune.study.repeats import PointMean
from posetune.study.search.rungs import rung_epochs
from posetune.study.search.space import Space
from posetune.study.states import TrialState
from posetune.study.view import SweepView

__all__ = ["health_lines", "patience_line", "pause_lines"]

EDGE = 0.02
"""Share of a range at either end that counts as its edge, on the range's own scale."""
ENOUGH = 6
"""Complete trials from which on a rank correlation is told."""
FORETELLS = 0.5
"""Rank correlation below which a first rung says too little of the end."""
MANY, IDLE = 20, 0.02
"""Trials from which on a parameter counts as idle that explains no more than this share."""


def pause_lines(view: SweepView) -> list[str]:
    """Return for each paused trial, best first, why it does not go on."""
    paused = [trial for trial in view.ranked if trial.state == TrialState.PAUSED]
    lines = [f"trial {trial.number} {trial.reason}" for trial in paused[:FEW]]
    return [*lines, *([f"{len(paused) - FEW} more are paused"] if len(paused) > FEW else [])]


def patience_line(view: SweepView) -> str:
    """Return what is still to gain, where the sweep ends by it; empty where it does not."""
    patience = view.spec.budget.patience
    if patience is None:
        return ""
    if view.gain is None:
        return "patience: it is not known yet what is still to gain, or the noise between seeds"
    in_a_row = f"{view.gains_in_noise} of {patience} trials in a row"
    return f"patience: {gain_in_words(view.gain)}; below it at the ends of {in_a_row}"


def health_lines(view: SweepView) -> list[str]:
    """Return what looks wrong with a search, one sentence each; none where nothing does."""
    checks = (_failures, _early_rung, _edges, _noise, _idle)
    return [line for check in checks for line in check(view)]


def _failures(view: SweepView) -> Iterator[str]:
    states = Counter(trial.state for trial in view.trials if trial.state.is_end)
    ended, failed = states.total(), states[TrialState.FAILED]
    if ended >= 4 and failed > ended / 2:
        yield f"{failed} of {ended} trials failed: their reasons say why"


def _early_rung(view: SweepView) -> Iterator[str]:
    rungs = rung_epochs(view.spec.pruner)
    complete = {t.number for t in view.trials if t.state == TrialState.COMPLETE}
    if not rungs or len(complete) < ENOUGH:
        return
    values: dict[int, dict[int, float]] = {rungs[0]: {}, view.spec.pruner.max_epochs: {}}
    for report in view.reports:
        if report.trial in complete and report.epoch in values and report.value is not None:
            values[report.epoch][report.trial] = report.value
    early, late = values.values()
    both = sorted(early.keys() & late.keys())
    if len(both) < ENOUGH:
        return
    from scipy.stats import spearmanr

    alike = float(spearmanr([early[n] for n in both], [late[n] for n in both]).statistic)
    if alike < FORETELLS:
        yield (
            f"the first rung may be too early: over {len(both)} complete trials the values after "
            f"{count_epochs(rungs[0])} have a rank correlation of {alike:.2f} with those at the "
            "end; a larger pruner.grace_epochs compares later"
        )


def _edges(view: SweepView) -> Iterator[str]:
    if view.best is None:
        return
    for name, parameter in view.spec.search.items():
        if _is_at_edge(name, parameter, view.best.params[name]):
            value = format_value(view.best.params[name])
            bounds = ", ".join(format_value(bound) for bound in parameter.corners)
            yield f"the best trial has {name} {value}, at the edge of [{bounds}]: widen the range"


def _is_at_edge(name: str, parameter: FloatRange | IntRange | Choice, value: Scalar) -> bool:
    if isinstance(parameter, Choice):
        return False
    unit = Space({name: parameter}).to_unit({name: value})[0]
    return min(unit, 1 - unit) < EDGE


def _noise(view: SweepView) -> Iterator[str]:
    sign = view.spec.objective.sign
    means: list[PointMean] = sorted(view.means.values(), key=lambda mean: sign * mean.mean)
    if len(means) < 2 or means[0].error is None or means[1].error is None:
        return
    lead = abs(means[1].mean - means[0].mean)
    error = (means[0].error ** 2 + means[1].error ** 2) ** 0.5
    if lead < 2 * error:
        yield (
            f"the best parameters lead by {lead:.2g}, less than two standard errors "
            f"({2 * error:.2g}) between seeds: more sampler.repeats would tell"
        )


def _idle(view: SweepView) -> Iterator[str]:
    found = param_importance(view)
    if found.trials < MANY:
        return
    for name, share in found.params.items():
        if share < IDLE:
            yield (
                f"{name} explains {share:.1%} of the difference over {found.trials} trials: it "
                "may be fixed"
            )
