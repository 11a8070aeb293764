"""Trains a trial again from its record, in this process, and compares epoch by epoch."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posetune.api import Progress, silent
from posetune.spec.registration import load_trainable
from posetune.storage import Storage
from posetune.storage.store_place import StorePlace
from posetune.study.search.seeding import seed_for
from posetune.study.view import SweepView, TrialView
from posetune.trial.checkpoints import drop_checkpoints
from posetune.trial.run import Assignment, TrialRun

__all__ = ["Recorded", "Reproduction", "changed_environment", "reproduce"]

SEEDS = 2
"""Number of further seeds to train: they tell how far results lie apart where they cannot be
equal."""


@dataclass(frozen=True)
class Recorded:
    """A trial as the study remembers it."""

    view: SweepView
    trial: TrialView
    metrics: Sequence[Mapping[str, float | None]]
    """The metrics that the trial reported, one mapping per epoch."""
    store: str
    """Address of the store: a folder, or s3://..."""
    storage: Storage


@dataclass(frozen=True)
class Reproduction:
    """Compares a trial that was trained again with its record."""

    epochs: int
    equal: bool
    """Whether every metric of every epoch is the same to the last bit."""
    recorded: float | None
    """The recorded value of the objective after the last epoch."""
    found: float | None
    largest: tuple[str, int, float] | None
    """Metric, epoch and size of the largest relative difference; None where all is equal."""
    gap: float = 0.0
    """The largest difference between the recorded and the new objective, over all epochs."""
    spread: float | None = None
    """The largest difference of the objective between two seeds; None where no seeds were
    trained."""

    @property
    def within_spread(self) -> bool:
        """Whether the objective differs by no more than other seeds do."""
        return self.spread is not None and self.gap <= self.spread


def reproduce(
    record: Recorded,
    *,
    with_seeds: bool,
    on_epoch: Callable[[int, Mapping[str, float]], None],
    progress: Progress = silent,
) -> Reproduction:
    """Train the trial again as far as it came.

    Args:
        record: the trial.
        with_seeds: where it is not equal, train further seeds to know how much that means.
        on_epoch: is told each epoch's number and metrics.
        progress: of the epoch under way.
    """
    metric = record.view.spec.objective.metric
    again = _train(record, record.trial.seed, on_epoch=on_epoch, progress=progress)
    pairs = list(zip(record.metrics, again, strict=True))
    differences = [
        (name, epoch, _difference(old.get(name), new.get(name)))
        for epoch, (old, new) in enumerate(pairs, 1)
        for name in {**old, **new}
    ]
    largest = max(differences, key=lambda found: found[2], default=None)
    equal = largest is None or largest[2] == 0
    spread = None
    if with_seeds and not equal:
        runs = [again]
        for i in range(SEEDS):
            seed = seed_for(record.trial.seed, i, "reproduce")
            runs.append(_train(record, seed, on_epoch=on_epoch, progress=progress))
        curves = [_curve(run, metric) for run in runs]
        spread = max(_apart(one, two) for one in curves for two in curves)
    return Reproduction(
        epochs=len(again),
        equal=equal,
        recorded=record.metrics[-1].get(metric),
        found=again[-1].get(metric),
        largest=None if equal else largest,
        gap=_apart(_curve(record.metrics, metric), _curve(again, metric)),
        spread=spread,
    )


def changed_environment(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what may change the numbers: `name: before -> now` for each thing that differs."""

    def facts(provenance: Mapping[str, Any]) -> dict[str, Any]:
        diff = provenance.get("diff") or {}
        return {
            "processor": provenance.get("processor"),
            "gpus": provenance.get("gpus") or None,
            "python": provenance.get("python"),
            "commit": provenance.get("commit"),
            "changes to the commit": str(diff.get("sha256"))[:12] if diff else None,
            **dict(provenance.get("versions") or {}),
        }

    old, new = facts(before), facts(now)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in names]


def _train(
    record: Recorded,
    seed: int,
    *,
    on_epoch: Callable[[int, Mapping[str, float]], None],
    progress: Progress,
) -> list[dict[str, float | None]]:
    view, trial = record.view, record.trial
    assignment = Assignment(
        sweep=f".reproduce-{uuid.uuid4().hex[:8]}",  # no sweep's name begins with a dot
        trial=trial.number,
        attempt=1,
        seed=seed,
        params=trial.params,
        spec=view.spec.up_to(trial.last_epoch),
        store=StorePlace(record.store, view.store_digest),
        storage=record.storage,
        checkpoints=(),
    )
    found: list[dict[str, float | None]] = []
    try:
        run = TrialRun(load_trainable(view.spec.trainable)(), assignment, progress)
        try:
            while len(found) < len(record.metrics):
                result = run.next_epoch()
                drop_checkpoints(record.storage, [result.checkpoint])
                on_epoch(result.epoch, result.metrics)
                found.append(
                    {k: (v if math.isfinite(v) else None) for k, v in result.metrics.items()}
                )
        finally:
            run.close()
    finally:
        record.storage.remove(f"checkpoints/{assignment.sweep}")
    return found


def _curve(epochs: Sequence[Mapping[str, float | None]], metric: str) -> list[float | None]:
    return [epoch.get(metric) for epoch in epochs]


def _apart(one: Sequence[float | None], two: Sequence[float | None]) -> float:
    """Return the largest distance between two curves, without the epochs that have no number."""
    gaps = [abs(a - b) for a, b in zip(one, two, strict=True) if a is not None and b is not None]
    return max(gaps, default=0.0)


def _difference(old: float | None, new: float | None) -> float:
    """Return the relative difference of two values; it is infinite where only one is a number."""
    if old is None or new is None:
        return 0.0 if old is None and new is None else math.inf
    if old == new:
        return 0.0
    return abs(old - new) / max(abs(old), abs(new))
