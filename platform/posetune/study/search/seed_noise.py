"""Estimates how far apart the values of trials are that differ in their seed alone.

Best known is that from trials with the same parameters: `sampler.repeats`, trials that people
enqueued again, finalists that were trained again with further seeds, and trials of the sweeps that
this one starts from. Where there are none, audited trials tell something like it: how far apart
trials end that stood alike at a rung. That holds what the rung does not know of their settings, but
not what their seeds had brought them there; so it is rougher.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from posetune.spec.sweep import SweepSpec
from posetune.study.search.start_from import prior_trials
from posetune.study.state import SweepState
from posetune.study.states import TrialState

__all__ = ["SeedNoise", "noise_of_audit", "noise_of_repeats", "seed_noise", "what_is_missing"]

FEWEST = 3
"""Trials that are needed beyond the first one of each point, and audited trials that are needed."""
MOST_COMPARED = 100
"""Complete trials, audited ones first, that a rung is compared with the end over."""
SPREAD_OF_MEDIAN = 1.4826
"""Standard deviation of a normal variable whose absolute value has the median 1."""


class SeedNoise(NamedTuple):
    """How much values differ between seeds."""

    spread: float
    """Standard deviation, in the objective's unit."""
    source: str
    """What it is known from, in words."""


def seed_noise(state: SweepState) -> SeedNoise | None:
    """Return the noise between seeds of a sweep; None while too little is known."""
    return noise_of_repeats(_repeated(state)) or _noise_of_audit(state)


def what_is_missing(spec: SweepSpec, *, has_finalists: bool = False) -> str:
    """Return what a sweep lacks that has `budget.patience`; empty where it lacks nothing."""
    sampler, pruner = spec.sampler, spec.pruner
    is_audited = pruner.name == "asha" and pruner.audit_share > 0
    if spec.budget.patience is None or sampler.repeats > 1 or is_audited or has_finalists:
        return ""
    ways = "sampler.repeats: 2, or finalists of this sweep (posetune promote --seeds 2)"
    if pruner.name == "asha":
        ways = f"pruner.audit_share: 0.1, {ways}"
    where = " beyond those that it starts from" if sampler.start_from else ""
    return (
        f"budget.patience: {spec.budget.patience}: nothing tells the noise between seeds{where}, "
        f"so the sweep may not end by its patience; give {ways}"
    )


def noise_of_repeats(groups: Iterable[Sequence[float]]) -> SeedNoise | None:
    """Return the noise that trials with the same parameters tell; None where they are too few.

    Args:
        groups: the values of the trials of each point.
    """
    squares, free, trials, points = 0.0, 0, 0, 0
    for values in groups:
        finite = [value for value in values if math.isfinite(value)]
        if len(finite) < 2:
            continue
        mean = math.fsum(finite) / len(finite)
        squares += math.fsum((value - mean) ** 2 for value in finite)
        free += len(finite) - 1
        trials += len(finite)
        points += 1
    if free < FEWEST:
        return None
    return SeedNoise(math.sqrt(squares / free), f"{trials} trials with {points} sets of parameters")


def noise_of_audit(
    at_rung: Sequence[float], at_end: Sequence[float], audited: int
) -> SeedNoise | None:
    """Return how far apart trials end that stood alike at a rung; None where they are too few.

    Args:
        at_rung: the values of complete trials at the rung.
        at_end: their values at the end, in the same order.
        audited: how many of them would have been cut at the rung.
    """
    if audited < FEWEST or len(at_end) < 2 * FEWEST or len(set(at_rung)) < 2:
        return None
    from scipy.stats import theilslopes  # takes a second, which only a driver has

    slope = theilslopes(at_end, at_rung)[0]
    rest = np.asarray(at_end) - slope * np.asarray(at_rung)
    spread = SPREAD_OF_MEDIAN * float(np.median(np.abs(rest - np.median(rest))))
    return SeedNoise(spread, f"{audited} audited trials")


def _repeated(state: SweepState) -> list[list[float]]:
    """Return the values of complete trials that have the same parameters, for each of them."""
    objective = state.spec.objective
    groups: dict[tuple[object, ...], list[float]] = {}
    for trial in state.trials:
        chosen = trial.chosen(objective)
        is_own = trial.parent is None and trial.taught is None
        if trial.state == TrialState.COMPLETE and is_own and chosen is not None:
            groups.setdefault(("here", *trial.params.items()), []).append(chosen.value)
    for other in prior_trials(state.prior):
        if other.state == TrialState.COMPLETE and not other.store:
            values = _chosen(other.values, state.spec)
            groups.setdefault(("there", *other.params.items()), []).append(values)
    return [*groups.values(), *(list(values) for values in state.finalists)]


def _chosen(values: Mapping[int, float], spec: SweepSpec) -> float:
    if spec.objective.select == "last":
        return values[max(values)]
    return spec.objective.best(values.values())


def _noise_of_audit(state: SweepState) -> SeedNoise | None:
    """Return what the audited trials of the rung tell that has most of them."""
    last = state.spec.pruner.max_epochs
    complete = [t for t in state.trials if t.state == TrialState.COMPLETE and t.taught is None]
    drawn = {t.number for t in complete if not t.is_pinned}  # a person has chosen the others
    cut_at = {n: epoch for n, epoch in state.rungs.audited.items() if n in drawn}
    cuts = list(cut_at.values())
    if not cuts:
        return None
    rung = min(set(cuts), key=lambda epoch: (-cuts.count(epoch), epoch))
    complete.sort(key=lambda t: (cut_at.get(t.number) != rung, -t.number))
    pairs = [
        (early, late)
        for t in complete[:MOST_COMPARED]
        if (early := t.values.get(rung)) is not None and (late := t.values.get(last)) is not None
    ]
    at_rung, at_end = [early for early, _ in pairs], [late for _, late in pairs]
    return noise_of_audit(at_rung, at_end, cuts.count(rung))
