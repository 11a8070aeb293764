"""Hands the study's trials out to Tune."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from posetune.execution.driver_context import DriverContext
from posetune.execution.messages import suggested_config
from posetune.execution.nodes.placement import ClusterWatch
from posetune.execution.tune_adapter import StatelessSearcher

__all__ = ["StudySearcher"]


class StudySearcher(StatelessSearcher):
    """Asks the study for trials, open ones first; everything it knows is in the study."""

    def __init__(self, context: DriverContext, watch: ClusterWatch) -> None:
        super().__init__()
        self._context = context
        self._run = context.run
        self._watch = watch
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial, None while all slots are taken, FINISHED when none is left."""
        if self._context.stop_reason():
            return Searcher.FINISHED
        under_way = len(self._numbers)
        if under_way and (under_way >= self._watch.slots or self._watch.is_waiting):
            return None
        if not self._context.turn.may_start:
            return None if under_way else Searcher.FINISHED  # the driver waits, without Tune
        trial = self._run.next_trial()
        if trial is None:
            return Searcher.FINISHED
        self._numbers[trial_id] = trial.number
        return suggested_config(trial.number)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Note that Tune is done with a trial; whether the trial has ended, the study decides."""
        self._numbers.pop(trial_id)
