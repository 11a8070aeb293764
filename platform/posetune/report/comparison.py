"""Compares sweeps and trials: what differs in settings, data and code, and their metrics.

A sweep is compared by its best trial. Models that still exist are evaluated on the whole validation
split, so that every average has an interval over motions. If two models were evaluated on the same
data, their difference has an interval too; it is taken from the same draws of motions, so it is
narrower than two intervals beside each other suggest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from posetune.api import BadInputError, Evaluation, MotionBootstrap, Progress, interval, silent
from posetune.report.tables import budget_used
from posetune.spec.registration import load_trainable
from posetune.storage import Storage, open_folder
from posetune.study.view import SweepView, TrialView
from posetune.trial.exported import verified_model

__all__ = ["Compared", "compare", "comparison_json", "comparison_tables", "evaluate_for_comparison"]

MOST_NAME = 40
"""Largest number of characters of a name that keep their place on a narrow terminal."""

Interval = tuple[float, float, float]
"""Mean and the two ends of its 95 % interval, which are NaN if the interval is not known."""


@dataclass(frozen=True)
class Compared:
    """Holds one column of a comparison: a trial, or a sweep with its best trial."""

    name: str
    """Name of the column: `SWEEP`, or `SWEEP/TRIAL` for a trial."""
    view: SweepView
    """The sweep."""
    trial: TrialView | None
    """The trial that is compared; None if the sweep has no trial with a value."""
    evaluation: Evaluation | None = None
    """Evaluation of the trial's model on validation; None if there is none."""
    missing: str = ""
    """Why there is no evaluation; empty if there is one or none was asked for."""


@dataclass(frozen=True)
class SweepComparison:
    """Holds the rows of a comparison by their names; each row has one entry per column."""

    names: tuple[str, ...]
    """Names of the columns."""
    settings: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """The settings that differ."""
    data_and_code: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """The facts of data, code and machine that differ."""
    outcome: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """State, trial, epochs, value and budget, whether they differ or not."""
    metrics: dict[str, tuple[Interval | None, ...]] = field(default_factory=dict)
    """Each metric of the evaluations; None if a column does not have it."""
    differences: dict[str, Interval] = field(default_factory=dict)
    """Objective of a later column minus that of the first, by the later column's name. Columns
    that were not evaluated on the same frames are left out."""
    notes: tuple[str, ...] = ()
    """Sentences about what is missing."""


def compare(columns: Sequence[Compared]) -> SweepComparison:
    """Return what differs between sweeps or trials, and the metrics of each."""
    first = columns[0]
    differences = {}
    for column in columns[1:]:
        found = _paired(first, column)
        if found is not None:
            differences[column.name] = found
    return SweepComparison(
        names=tuple(column.name for column in columns),
        settings=_rows(columns, _settings, only_different=True),
        data_and_code=_rows(columns, _data_and_code, only_different=True),
        outcome=_rows(columns, _outcome, only_different=False),
        metrics=_rows(columns, _metrics, only_different=False),
        differences=differences,
        notes=tuple(f"{c.name}: {c.missing}" for c in columns if c.missing),
    )


def evaluate_for_comparison(
    column: Compared, storage: Storage, progress: Progress = silent
) -> Compared:
    """Return a copy of the column with its model's evaluation on validation.

    A model or a store that cannot be used is no error: the copy says why in `missing`.

    Args:
        column: the sweep or trial.
        storage: where the sweep's checkpoints are.
        progress: hears how many frames are evaluated.
    """
    if column.trial is None:
        return column
    view = column.view
    try:
        trainable = load_trainable(view.spec.trainable)
        with verified_model(
            storage, view, column.trial, trainable=trainable, progress=progress
        ) as model:
            store = open_folder(view.store)
            if trainable.describe_store(store).digest != view.store_digest:
                raise BadInputError(f"store {view.store} has changed since the sweep ran on it")
            found = trainable.evaluate(model.folder, store, "val", progress)
    except BadInputError as error:
        missing = f"reported values without intervals ({error})"
        return Compared(column.name, view, column.trial, missing=missing)
    return Compared(column.name, view, column.trial, found)


def comparison_tables(found: SweepComparison) -> RenderableType:
    """Return the comparison as tables for a terminal."""
    parts: list[RenderableType] = []
    for title, rows in (
        ("outcome", found.outcome),
        ("different settings", found.settings),
        ("different data and code", found.data_and_code),
    ):
        if rows:
            parts.append(_table(title, found.names, {n: map(_shown, r) for n, r in rows.items()}))
        else:
            parts.append(Text(f"no {title}"))
    title = "metrics on validation (95 % interval over motions)"
    metrics = {name: map(_shown_interval, row) for name, row in found.metrics.items()}
    parts.append(_table(title, found.names, metrics))
    for name, (mean, low, high) in found.differences.items():
        sure = "" if math.isnan(low) else f", 95 % interval {low:+.4g} to {high:+.4g}"
        same = "" if math.isnan(low) or low > 0 or high < 0 else ": no telling them apart"
        parts.append(Text(f"{name} less {found.names[0]}: {mean:+.4g}{sure}{same}"))
    return Group(*parts, *(Text(note) for note in found.notes))


def comparison_json(found: SweepComparison) -> dict[str, Any]:
    """Return the object that `posetune compare --json` prints."""

    def ends(value: Interval | None) -> dict[str, float | None] | None:
        if value is None:
            return None
        known = [None if math.isnan(part) else part for part in value]
        return dict(zip(("mean", "low", "high"), known, strict=True))

    return {
        "names": found.names,
        "outcome": found.outcome,
        "settings": found.settings,
        "data_and_code": found.data_and_code,
        "metrics": {name: [ends(v) for v in row] for name, row in found.metrics.items()},
        "differences": {name: ends(value) for name, value in found.differences.items()},
        "notes": found.notes,
    }


def _rows(
    columns: Sequence[Compared],
    of: Callable[[Compared], Mapping[str, Any]],
    *,
    only_different: bool,
) -> dict[str, tuple[Any, ...]]:
    facts = [of(column) for column in columns]
    names = list(dict.fromkeys(name for fact in facts for name in fact))
    rows = {name: tuple(fact.get(name) for fact in facts) for name in names}
    if only_different:
        rows = {n: row for n, row in rows.items() if any(v != row[0] for v in row[1:])}
    return rows


def _settings(column: Compared) -> dict[str, Any]:
    """Return everything that a person chose: the configuration, and how the search ran."""
    spec = column.view.spec
    search = spec.canonical()
    how = {
        f"{section}.{key}": value
        for section in ("objective", "sampler", "pruner", "resources", "budget", "keep")
        for key, value in search[section].items()
    }
    space = {f"search.{name}": value for name, value in search["search"].items()}
    params = column.trial.params if column.trial else {}
    config = {**spec.fixed, **params}
    if column.name != column.view.name:  # a trial: its seed is a setting, the space is not
        return {"trainable": spec.trainable, **config, **_only(how, ("objective", "resources"))}
    return {"trainable": spec.trainable, **config, **space, **how}


def _only(facts: Mapping[str, Any], sections: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name.partition(".")[0] in sections}


def _data_and_code(column: Compared) -> dict[str, Any]:
    view, provenance = column.view, column.view.provenance
    diff = provenance.get("diff") or {}
    return {
        "store digest": view.store_digest[:12],
        "commit": str(provenance.get("commit", "unknown"))[:12],
        "changes to the commit": str(diff.get("sha256", ""))[:12] or None,
        "processor": provenance.get("processor"),
        "gpus": ", ".join(provenance.get("gpus") or []) or None,
        **dict(provenance.get("versions") or {}),
    }


def _outcome(column: Compared) -> dict[str, Any]:
    view, trial = column.view, column.trial
    facts: dict[str, Any] = {"state": view.state if column.name == view.name else None}
    if trial is not None:
        facts |= {
            "trial": trial.number,
            "trial's state": trial.state,
            "epochs": f"{trial.epochs}/{trial.last_epoch}",
        }
        if trial.chosen is not None:
            facts["counted epoch"] = f"{trial.chosen.epoch} ({view.spec.objective.select})"
            facts[view.spec.objective.metric] = trial.chosen.value
    if column.name == view.name:
        facts["budget used"] = budget_used(view)
    return {name: value for name, value in facts.items() if value is not None}


def _metrics(column: Compared) -> dict[str, Interval | None]:
    nan = math.nan
    if column.evaluation is not None:
        intervals = column.evaluation.intervals
        return {
            name: (value, *intervals.get(name, (nan, nan)))
            for name, value in column.evaluation.metrics.items()
        }
    if column.trial is None or column.trial.chosen is None:
        return {}
    return {column.view.spec.objective.metric: (column.trial.chosen.value, nan, nan)}


def _paired(first: Compared, other: Compared) -> Interval | None:
    """Return the objective of `other` minus that of `first` on the same frames, with its interval.

    It is None if the two were not evaluated on the same frames.
    """
    name = first.view.spec.objective.metric.rpartition("/")[2]
    if first.evaluation is None or other.evaluation is None:
        return None
    one, two = first.evaluation.records, other.evaluation.records
    same = first.view.store_digest == other.view.store_digest
    if not same or not {name, "motion", "group"} <= {*one} & {*two}:
        return None
    gap_n = two[name] - one[name]
    bootstrap = MotionBootstrap(one["motion"])
    drawn = bootstrap.macro(gap_n, one["group"])
    groups = [gap_n[one["group"] == group].mean() for group in set(one["group"].tolist())]
    return (sum(groups) / len(groups), *interval(drawn, bootstrap.motions))


def _table(title: str, names: Sequence[str], rows: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE)
    longest = max(map(len, rows), default=0)
    table.add_column(title, min_width=min(longest, MOST_NAME), overflow="fold")
    for name in names:
        table.add_column(name, overflow="fold")
    for name, row in rows.items():
        table.add_row(name, *row)
    return table


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shown_interval(value: Interval | None) -> str:
    if value is None:
        return "-"
    mean, low, high = value
    return f"{mean:.4g}" if math.isnan(low) else f"{mean:.4g} ({low:.4g} to {high:.4g})"
