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

__all__ = ["Overlap", "PriorTrial", "gather", "prior_trials", "shown"]


@dataclass(frozen=True)
class PriorTrial:
    """A finished trial of another sweep."""

    params: dict[str, Scalar]
    values: dict[int, float]
    """The objective by epoch, where it was a number."""
    state: TrialState
    """COMPLETE or PRUNED."""
    store: str = ""
    """Digest of its store, where that is not the sweep's own."""


def gather(
    connection: Connection, spec: SweepSpec, store_digest: str, defaults: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the trials to start from, as JSON, and notes of what was taken and left out, and why.

    Args:
        connection: the study.
        spec: the sweep that starts.
        store_digest: of its data.
        defaults: the trainable's configuration where nothing else is given, by dotted name.

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
        store = "" if row["store_digest"] == store_digest else str(row["store_digest"])
        obstacle = _obstacle(other, spec) or _store_obstacle(spec, store, store_digest)
        if obstacle:
            raise BadInputError(f"sampler.start_from: sweep {name} is not compatible: {obstacle}")
        overlap = Overlap(spec, other.fixed, defaults)
        found, refused = _usable(journal.fold_sweep(connection, row).trials, overlap, store)
        reasons = ", ".join(f"{reason} ({count})" for reason, count in refused.items())
        if not found:
            raise BadInputError(
                f"sampler.start_from: no trial of sweep {name} can be used: "
                f"{reasons or 'none is finished'}"
            )
        trials += found
        notes.append(_note(name, len(found), overlap, store, reasons))
    return [asdict(trial) for trial in trials], notes


def _note(name: str, count: int, overlap: Overlap, store: str, reasons: str) -> str:
    """Return what was taken of a sweep, and what was left out, as one line."""
    data = f", on other data (digest {store[:12]}), at a discount that gp learns" if store else ""
    taken = [f"{field} {value}" for field, value in overlap.left_to_default.items()]
    assumed = f"; taken at the defaults of now: {', '.join(taken)}" if taken else ""
    left_out = f"; left out: {reasons}" if reasons else ""
    return f"starts from {count} trials of {name}{data}{assumed}{left_out}"


def prior_trials(found: Sequence[Mapping[str, Any]]) -> list[PriorTrial]:
    """Return the trials that a sweep's first event holds as JSON."""
    return [
        PriorTrial(
            params=trial["params"],
            values={int(epoch): value for epoch, value in trial["values"].items()},
            state=TrialState(trial["state"]),
            store=trial.get("store", ""),
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


def _store_obstacle(spec: SweepSpec, store: str, ours: str) -> str:
    """Say why trials on other data cannot be learned from; empty where they can."""
    if not store or spec.sampler.name == "gp":
        return ""
    return (
        f"its store has digest {store[:12]}, this one {ours[:12]}; the sampler "
        f"{spec.sampler.name} would take their values for its own, so only sampler: {{name: gp}} "
        "learns from other data, at a discount"
    )


class Overlap:
    """Finds the trials of another sweep that lie in the space of this one."""

    def __init__(
        self, spec: SweepSpec, fixed: Mapping[str, Any], defaults: Mapping[str, Any]
    ) -> None:
        """Compare two sweeps of one trainable.

        Args:
            spec: this sweep.
            fixed: the fields that the other one has fixed.
            defaults: the trainable's configuration where nothing else is given, by dotted name; a
                field that is missing has a default that nobody knows.
        """
        self._spec, self._fixed, self._defaults = spec, fixed, defaults
        self.left_to_default: dict[str, Any] = {}
        """Fields that this sweep searches and the other one has left to their defaults."""

    def params(self, theirs: Mapping[str, Scalar]) -> dict[str, Scalar] | str:
        """Return the parameters that a trial of the other sweep has here, or why it has none.

        A field that only this sweep searches has the value that the other one has fixed, or else
        its default. A field that this sweep does not search has to be equal in both.
        """
        config = {**self._fixed, **theirs}
        for name, parameter in self._spec.search.items():
            if name not in config:
                if name not in self._defaults:
                    return f"{name} is searched here and left to its default there"
                config[name] = self.left_to_default[name] = self._defaults[name]
            if not holds(parameter, config[name]):
                return f"{name} outside {shown(parameter)}"
        for name in sorted({*config, *self._spec.fixed} - set(self._spec.search)):
            there, here = self._value(name, config), self._value(name, self._spec.fixed)
            if there != here:
                return f"{name} is {there} there and {here} here"
        return {name: _as_ours(p, config[name]) for name, p in self._spec.search.items()}

    def _value(self, name: str, given: Mapping[str, Any]) -> Any:
        """Return the value that a field has; words where it is a default that nobody knows."""
        return given.get(name, self._defaults.get(name, "the default"))


def _usable(
    trials: Sequence[TrialRecord], overlap: Overlap, store: str
) -> tuple[list[PriorTrial], Counter[str]]:
    found: list[PriorTrial] = []
    refused: Counter[str] = Counter()
    for trial in trials:
        values = {epoch: value for epoch, value in trial.values.items() if value is not None}
        if not (trial.state and trial.state.has_value) or not values:
            continue
        params = overlap.params(trial.params)
        if isinstance(params, str):
            refused[params] += 1
        else:
            found.append(PriorTrial(params, values, trial.state, store))
    return found, refused


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
