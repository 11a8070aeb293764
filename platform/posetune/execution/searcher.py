"""Tune's searcher over the study: hands out trials."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from posetune.execution.driver_context import DriverContext
from posetune.execution.placement import ClusterWatch

__all__ = ["NUMBER", "StudySearcher"]

NUMBER = "posetune_trial"


class StudySearcher(Searcher):
    """Asks the study for trials, open ones first; everything it knows is in the study.

    It never answers "not yet" while no trial is under way: Tune's loop would sleep on that.
    """

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
        trial = self._run.next_trial()
        if trial is None:
            return Searcher.FINISHED
        self._numbers[trial_id] = trial.number
        return {NUMBER: trial.number}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Note the end of a trial; one that Tune gave up is told FAILED."""
        number = self._numbers.pop(trial_id)
        if error and self._run.trials[number].state is None:
            self._run.fail(number, self._context.deaths.get(number, "its worker died"))
            self._context.release(number)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: the scheduler reports."""

    def set_search_properties(self, *_args: Any, **_spec: Any) -> bool:
        """Accept anything: metric and space are the study's."""
        return True

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Say that the searcher limits itself, to the number of slots."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study is the truth, and Tune's state is never read back."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {}
