"""Tune's scheduler over the study: the point where every report is committed before anything acts.

`on_trial_result` is the first code of ours that sees a result; it is synchronous, and the worker
waits for its answer. Retries while the database is away happen inside it, because an exception in
a scheduler ends the sweep.
"""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from posetune.execution.actor import (
    ASSIGNMENT,
    FAILED,
    HANDED_OVER,
    HANDLE,
    NODE,
    REFUSED,
    RESULT,
    STARTED,
    WAITING,
)
from posetune.execution.driver_context import DriverContext
from posetune.execution.placement import ClusterWatch
from posetune.execution.searcher import NUMBER
from posetune.stages.cache import StageCache
from posetune.storage import StorageError
from posetune.study.records import CheckpointRecord
from posetune.study.rungs import Decision
from posetune.study.sweep import StaleAttemptError
from posetune.trial.run import EpochResult, Started

__all__ = ["MAX_ATTEMPTS", "StudyScheduler"]


MAX_ATTEMPTS = 4
"""A trial whose worker died this often is told FAILED."""


class StudyScheduler(FIFOScheduler):
    """Reports to the study and does what it decides."""

    def __init__(self, context: DriverContext, watch: ClusterWatch) -> None:
        super().__init__()
        self._context = context
        self._watch = watch
        self._run = context.run
        self._nodes: dict[int, str] = {}
        """Of each trial that has begun to train."""
        self._preemption = context.preemption
        self._looked_for_baselines = False

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Begin an attempt: called for a new trial, and again after its worker has died."""
        number = _number(trial)
        attempt = self._run.begin_attempt(number)
        self._context.unplaced.add(number)
        self._ask_for_room(trial)
        # The study counts, over all lives of the driver; Tune is told how many are left.
        left = max(0, MAX_ATTEMPTS - 1 - attempt.crashes)
        trial.max_failures = trial.run_metadata.num_failures + left
        trial.set_config({NUMBER: number, ASSIGNMENT: self._context.assign(attempt)})

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Choose none: Tune queues trials by itself, in their order.

        The oldest pending trial, which is Tune's usual choice, would take any worker that is free,
        and have the one killed that is starting for it; the next trial then waits for another.
        With many slots, and trials shorter than the start of a process, they were never all busy.
        """

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Remember why the worker died, in case Tune gives the trial up."""
        record = self._run.trials[_number(trial)]
        self._preemption.at_work.pop(record.number, None)
        self._context.unplaced.discard(record.number)
        node = self._nodes.pop(record.number, None)
        self._ask_for_room(trial)
        if record.has_handed_over:
            return
        if node is not None:
            self._watch.lost(record.number, record.attempt, node)
        text = _error_text(trial)
        if "out of memory" in text:
            self._watch.ran_out_of_memory(record.number)
            self._ask_for_room(trial)
        last_line = text.strip().splitlines()[-1]
        said = f"its worker died {record.crashes + 1} times, at last of: {last_line}"
        self._context.deaths[record.number] = said

    def _ask_for_room(self, trial: Trial) -> None:
        """Say what a trial's next attempt takes: before Tune queues it, by which it files it."""
        if trial.status != Trial.RUNNING:  # then Tune gives it up
            trial.update_resources(self._watch.request(_number(trial)))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Commit a report and return what to do with the trial."""
        _forget_answers(tune_controller, trial)
        number, attempt = _number(trial), trial.config[ASSIGNMENT].attempt
        self._context.unplaced.discard(number)
        goes_on = False
        if FAILED in result:
            self._run.fail(number, result[FAILED])
            self._context.release(number)
        elif REFUSED in result:
            self._context.stopping.refuse(result[REFUSED])
        elif WAITING in result:
            self._run.notice = (
                f"trial {number} waits: {result[WAITING]}; make some, or press Ctrl-C"
            )
            goes_on = True
        else:
            self._run.notice = ""
            with contextlib.suppress(StaleAttemptError):
                if STARTED in result:
                    asked: Any = trial.placement_group_factory
                    gpu = asked.required_resources.get("GPU", 0.0)
                    where = {"ray_node": result[NODE], "gpu": gpu}
                    self._note_start(number, attempt, result[STARTED], where=where)
                    self._preemption.at_work[number] = partial(ray.kill, result[HANDLE])
                    self._nodes[number] = result[NODE]
                    goes_on = True
                elif HANDED_OVER in result:
                    self._take_over(number, attempt, result[HANDED_OVER])
                    goes_on = not self._preemption.asked
                    trial.max_failures += 1  # the worker ends now, but it has not failed
                else:
                    goes_on = self._report(number, attempt, result[RESULT])
        if not goes_on:
            self._preemption.at_work.pop(number, None)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: Any) -> None:
        """Forget the statistics that Tune keeps of every trial: the study has its results."""
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()

    def _note_start(
        self, number: int, attempt: int, started: Started, *, where: dict[str, Any]
    ) -> None:
        """Record where the attempt runs, the stages it stands on, and the baselines they hold."""
        self._run.started(number, attempt, facts={**started.placement, **where})
        for name, stage in started.stages.items():
            self._run.stage_used(number, name, key=stage.key, trained=stage.trained)
        if not (self._run.has_baselines or self._looked_for_baselines):
            with contextlib.suppress(StorageError):  # away: looked for at the next start
                self._note_baselines(started)

    def _note_baselines(self, started: Started) -> None:
        """Look once for the baselines; the worker's folders may be on another node."""
        cache = StageCache(self._context.home.storage)
        found = {name: cache.find(name, stage.key) for name, stage in started.stages.items()}
        folders = {name: folder for name, folder in found.items() if folder is not None}
        metric = self._run.spec.objective.metric
        self._run.baselines(self._context.trainable.baselines(folders, metric))
        self._looked_for_baselines = True

    def _report(self, number: int, attempt: int, epoch: EpochResult) -> bool:
        decision = self._run.report(
            number,
            attempt,
            epoch=epoch.epoch,
            metrics=epoch.metrics,
            seconds=epoch.seconds,
            checkpoint=epoch.checkpoint,
        )
        self._watch.peaked(number, epoch.peak_bytes)
        goes_on = decision == Decision.CONTINUE and self._run.goes_on(number)
        if decision != Decision.CONTINUE:
            self._run.finish(number)
        self._context.release(number)
        return goes_on

    def _take_over(self, number: int, attempt: int, checkpoint: CheckpointRecord | None) -> None:
        """Commit what a worker saved that was told to stop."""
        if checkpoint is not None:
            self._run.hand_over(number, attempt, checkpoint=checkpoint)
            self._context.release(number)
        else:
            self._run.excuse(number, attempt, "told to stop where nothing could be saved")

    def debug_string(self) -> str:
        """Return nothing: the sweep has a table of its own."""
        return ""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study is the truth, and Tune's state is never read back."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _forget_answers(tune_controller: Any, trial: Trial) -> None:
    """Let go of what a trial's worker has answered so far.

    Tune keeps the future of every call until the trial ends, and Ray the answer with it: 3 KB for
    each epoch of every trial under way.
    """
    manager = tune_controller._actor_manager
    futures = manager._tracked_actors_to_task_futures[tune_controller._trial_to_actor[trial]]
    futures &= manager._actor_task_events.get_futures()  # those that are still to come


def _error_text(trial: Trial) -> str:
    """Return the trace of a worker's death, which Tune writes beside the driver."""
    if trial.error_file:
        with contextlib.suppress(OSError):
            return Path(trial.error_file).read_text(encoding="utf-8") or "no message"
    return "no message"


def _number(trial: Trial) -> int:
    return int(trial.config[NUMBER])
