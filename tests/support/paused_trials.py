"""Makes a sweep of which most trials are paused, as the pruner `thaw` leaves it."""

from __future__ import annotations

import random

from support.simulated_driver import simulated_start

from posetune.study.driving.sweep import SweepStart
from posetune.study.states import TrialState
from posetune.study.trials import TrialRecord

__all__ = ["many_trials"]


def many_trials(count: int) -> tuple[SweepStart, list[TrialRecord], list[tuple[int, int]]]:
    """A sweep with many trials in eight parameters, most of them paused."""
    search = {f"p{i}": {"float": [0.0, 1.0]} for i in range(8)}
    start = simulated_start(
        search=search, pruner={"name": "thaw", "max_epochs": 27}, budget={"trials": 2 * count}
    )
    generator = random.Random(0)
    trials, log = [], []
    for number in range(count):
        params = {name: generator.random() for name in search}
        epochs = generator.choice([3, 3, 3, 6, 12, 27])
        end = sum(abs(value - 0.5) for value in params.values())
        record = TrialRecord(number, params, 0, attempt=1, epoch=epochs, paused=1)
        record.values = {e: end + 3 / e + generator.gauss(0, 0.05) for e in range(1, epochs + 1)}
        record.value = record.values[epochs]
        if epochs == 27:
            record.state = TrialState.COMPLETE
        trials.append(record)
        log += [(number, epoch) for epoch in record.values]
    return start, trials, log
