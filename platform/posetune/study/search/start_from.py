"""Finds what a new sweep may learn from others: finished trials that lie in its space.

The trials are copied into the new sweep's first event, so a resume sees the same ones whatever has
become of the other sweeps. They inform the sampler; the rungs and the ranking are the sweep's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection

from posetune.api import BadInputError
from posetune.spec.parameters import Choice, FloatRange, IntRange, Scalar
from posetune.spec.sweep import SweepSpec
from posetune.study.search.space import holds
from posetune.study.states import TrialState
from posetune.study.tables import journal
from posetune.study.trials import TrialRecord

__all__ = ["PriorTrial", "gather", "prior_trials", "shown"]


@dataclass(frozen=True)
class PriorTrial:
    """A finished trial of another sweep."""

    params: dict[str, Scalar]
    values: dict[int, float]
    """The objective by epoch, where it was a number."""
    state: TrialState
    """COMPLETE or PRUNED."""


def gather(
    connection: Connection, spec: SweepSpec, store_digest: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the trials to start from, as JSON, and notes of what was left out and why.

    Raises:
        BadInputError: a sweep is not there, or none of its trials can be used.
    """
    trials: list[PriorTrial] = []
    notes: list[str] = []
    for name in spec.sampler.start_from:
        row = journal.find_sweep(connection, name)
        if row is None:
            raise BadInputError(f"sampler.start_from: no sweep {name!r} in this study")
        other = SweepSpec.model_validate(row["spec"])
        obstacle = _obstacle(other, spec) or (
            f"its store has digest {row['store_digest'][:12]}, this one {store_digest[:12]}"
            if row["store_digest"] != store_digest
            else ""
        )
        if obstacle:
            raise BadInputError(f"sampler.start_from: sweep {name} is not compatible: {obstacle}")
        found, refused = _usable(journal.fold_sweep(connection, row).trials, other=other, spec=spec)
        reasons = ", ".join(f"{reason} ({count})" for reason, count in refused.items())
        if not found:
            raise BadInputError(
                f"sampler.start_from: no trial of sweep {name} can be used: "
                f"{reasons or 'none is finished'}"
            )
        trials += found
        left_out = f"; left out: {reasons}" if reasons else ""
        notes.append(f"starts from {len(found)} trials of {name}{left_out}")
    return [asdict(trial) for trial in trials], notes


def prior_trials(found: Sequence[Mapping[str, Any]]) -> list[PriorTrial]:
    """Return the trials that a sweep's first event holds as JSON."""
    return [
        PriorTrial(
            params=trial["params"],
            values={int(epoch): value for epoch, value in trial["values"].items()},
            state=TrialState(trial["state"]),
        )
        for trial in found
    ]


def _obstacle(other: SweepSpec, spec: SweepSpec) -> str:
    """Say why no trial of another sweep can be compared with this one's; empty where they can."""
    pairs = {
        "trainable": (other.trainable, spec.trainable),
        "objective": (other.objective.metric, spec.objective.metric),
        "pruner.max_epochs": (other.pruner.max_epochs, spec.pruner.max_epochs),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            return f"its {name} is {theirs}, this one's {ours}"
    return ""


def _usable(
    trials: Sequence[TrialRecord], *, other: SweepSpec, spec: SweepSpec
) -> tuple[list[PriorTrial], Counter[str]]:
    found: list[PriorTrial] = []
    refused: Counter[str] = Counter()
    for trial in trials:
        values = {epoch: value for epoch, value in trial.values.items() if value is not None}
        if not (trial.state and trial.state.has_value) or not values:
            continue
        config = {**other.fixed, **trial.params}
        reason = _mismatch(config, spec)
        if reason:
            refused[reason] += 1
        else:
            params = {name: _as_ours(p, config[name]) for name, p in spec.search.items()}
            found.append(PriorTrial(params, values, trial.state))
    return found, refused


def _mismatch(config: Mapping[str, Any], spec: SweepSpec) -> str:
    """Say why a configuration is not one of the sweep's; empty where it is."""
    for name, parameter in spec.search.items():
        if name not in config:
            return f"{name} is searched here and left to its default there"
        if not holds(parameter, config[name]):
            return f"{name} outside {shown(parameter)}"
    for name in sorted({*config, *spec.fixed} - set(spec.search)):
        if config.get(name) != spec.fixed.get(name):
            here = spec.fixed.get(name, "the default")
            return f"{name} is {config.get(name, 'the default')} there and {here} here"
    return ""


def _as_ours(parameter: FloatRange | IntRange | Choice, value: Any) -> Scalar:
    """Return a value that a parameter holds as its own grid writes it."""
    found: Scalar = parameter.nearest(value) if isinstance(parameter, FloatRange) else value
    return found


def shown(parameter: FloatRange | IntRange | Choice) -> str:
    """Return what a searched parameter may be, in words."""
    if isinstance(parameter, Choice):
        return str(list(parameter.values))
    low, high = parameter.bounds
    return f"[{low:g}, {high:g}]"
