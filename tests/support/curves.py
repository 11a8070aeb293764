"""Replays searches of a space of which every point was trained once, in full.

Sampler, rungs and events are those of any sweep (`recording`); a trial's reports are looked up.
What a search takes is counted in epochs of training, so it does not depend on the machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from support.recording import Recording, record

from posetune.spec.parameters import Scalar
from posetune.spec.sweep import SweepSpec
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.tables.database import Database

__all__ = ["Curves", "Search", "epochs_until", "read_curves"]

JITTER = 0.1
"""How much epochs differ in length, in logarithms, so that trials report in changing order."""


@dataclass(frozen=True)
class Curves:
    """The learning curve of every point, lower is better; as a `World`, one for `record`."""

    space: Mapping[str, tuple[Scalar, ...]]
    values: Mapping[tuple[Scalar, ...], tuple[float, ...]]
    """For each point, in the order of `space`, its value after each epoch; short if it failed."""
    seed: int = 0
    setup_s: float = 0.0
    failing: float = 0.0
    dying: float = 0.0

    @property
    def epochs(self) -> int:
        """Epochs of each training."""
        return max(map(len, self.values.values()))

    @property
    def best(self) -> float:
        """The best value at the end of a training."""
        return min(curve[-1] for curve in self.values.values() if len(curve) == self.epochs)

    def value(self, params: Mapping[str, Scalar], trial: int, epoch: int) -> float:
        """Return what training a point reported after an epoch; not a number where it failed."""
        curve = self.values[tuple(params[name] for name in self.space)]
        return curve[epoch - 1] if epoch <= len(curve) else math.nan

    def seconds(self, params: Mapping[str, Scalar], generator: np.random.Generator) -> float:
        """Draw the length of an epoch: about a second."""
        return math.exp(JITTER * generator.normal())


def read_curves(file: Path) -> Curves:
    """Read what `tests/benchmarks/record_curves.py` wrote."""
    found = json.loads(file.read_text(encoding="utf-8"))
    space = {name: tuple(values) for name, values in found["space"].items()}
    values = {
        tuple(training["params"][name] for name in space): tuple(training["values"])
        for training in found["trainings"]
    }
    return Curves(space, values)


@dataclass(frozen=True)
class Search:
    """How a search ended."""

    epochs: int
    """Reports of all trials together, up to the one that was good enough."""
    trials: int
    reached: bool
    """Whether there was one before the trials of its budget were spent."""
    best: float
    """The lowest value that a trial has reported."""


def epochs_until(
    database: Database, curves: Curves, target: float, *, seed: int, slots: int = 2, **spec: Any
) -> Search:
    """Search until a trial reports a value that is good enough.

    Points may be drawn again; the training is then the same. Trial 0 is a point drawn by the seed,
    not the defaults, so that no search begins at a place that somebody chose.

    Args:
        database: the study; a search of each seed can be in it.
        curves: the trainings.
        target: which value is good enough.
        seed: of the search.
        slots: trials at a time.
        spec: keys of the sweep file: sampler (without its seed), pruner, budget.
    """
    content = {
        "objective": {"metric": "value", "mode": "min"},
        "search": {name: {"choice": list(values)} for name, values in curves.space.items()},
        **spec,
        "sampler": {**spec["sampler"], "seed": seed},
        "pruner": {"max_epochs": curves.epochs, **spec["pruner"]},
    }
    generator = np.random.default_rng(seed)
    points = list(curves.values)
    first = dict(zip(curves.space, points[generator.integers(len(points))], strict=True))
    sweep_start = SweepStart(
        f"search{seed}", SweepSpec.model_validate(content), "", "store", "d1", {}, first
    )
    world = Curves(curves.space, curves.values, seed)
    reached, best = False, math.inf
    count = 0

    def goes_on(run: SweepRun, recording: Recording) -> bool:
        nonlocal reached, best, count
        count = len(run.trials)
        if recording.reports:
            value = run.trials[recording.reports[-1][0]].value
            best = best if value is None else min(best, value)
            reached = best <= target
        return not reached

    recording = record(database, sweep_start, world, slots=slots, watch=goes_on)
    return Search(len(recording.reports), count, reached, best)
