"""Commits every report of a trial to the study before anything acts on it, as Tune's scheduler.

`on_trial_result` is the first code of ours that sees a result; it is synchronous, and the worker
waits for its answer. Retries while the database is away happen inside it, because an exception in
a scheduler ends the sweep.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import ray
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from posetune.execution.driver_context import DriverContext
from posetune.execution.messages import (
    UNSAVED,
    Trained,
    TrialFailed,
    TrialHandedOver,
    TrialRefused,
    TrialStarted,
    TrialWaits,
    WorkerBroken,
    assigned_config,
    assignment_of,
    energy_of,
    number_of,
    unpack,
)
from posetune.execution.nodes.placement import ClusterWatch
from posetune.execution.tune_adapter import (
    StatelessScheduler,
    ask_for_resources,
    end_queued_trial,
    forget_answers,
    forget_statistics,
    gpus_of,
    let_idle_worker_go,
    read_death,
)
from posetune.stages.cache import StageCache
from posetune.storage import StorageError
from posetune.study.driving.sweep import StaleAttemptError
from posetune.study.faults import Fault, FaultKind
from posetune.study.search.rungs import Decision
from posetune.trial.baselines import ask_baselines
from posetune.trial.checkpoints import stuck_file
from posetune.trial.run import EpochResult, Started

__all__ = ["StudyScheduler"]

DIED = "died"
"""What stands for the type of an error where a worker died and could say nothing."""

STUCK = "an epoch without any progress for too long; the trial's log shows where it was"
"""What is said of a worker that was killed because its epoch was stuck."""


class StudyScheduler(StatelessScheduler):
    """Reports to the study and does what it decides."""

    def __init__(self, context: DriverContext, watch: ClusterWatch) -> None:
        super().__init__()
        self._context = context
        self._watch = watch
        self._run = context.run
        self._controller: Any = None
        """Tune's loop; None before the first trial."""
        self._nodes: dict[int, str] = {}
        """Ray's id of the node of each trial that has begun to train."""
        self._preemption = context.preemption
        self._looked_for_baselines = False

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Begin an attempt: Tune calls this for a new trial, and after its worker has died."""
        self._controller = tune_controller
        number = number_of(trial.config)
        if self._run.trials[number].state is not None:
            end_queued_trial(tune_controller, trial)
            return
        attempt = self._run.begin_attempt(number)
        self._context.unplaced.add(number)
        self._ask_for_room(trial)
        trial.set_config(assigned_config(number, self._context.assign(attempt)))

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Commit that the worker died, unless it has said before what went wrong."""
        number = number_of(trial.config)
        record = self._run.trials[number]
        self._preemption.at_work.pop(number, None)
        self._context.unplaced.discard(number)
        node = self._nodes.pop(number, None)
        if not record.is_attempt_over and self._watch.is_ray_dead():
            self._run.excuse(number, record.attempt, "Ray on this machine has died")
        elif not record.is_attempt_over:
            if node is not None:
                self._watch.lost(number, record.attempt, node)
            self._attempt_failed(
                number, record.attempt, self._fault_of_death(trial, record.attempt)
            )
        self._ask_for_room(trial)

    def _fault_of_death(self, trial: Trial, attempt: int) -> Fault:
        """Return why a worker is gone that could say nothing itself."""
        storage, number = self._context.home.storage, number_of(trial.config)
        mark = stuck_file(self._run.name, number, attempt)
        with contextlib.suppress(StorageError):
            if storage.exists(mark):
                storage.remove(mark)
                return Fault(FaultKind.STUCK, "stuck", "", STUCK)
        return Fault(FaultKind.CRASH, DIED, "", read_death(trial))

    def _attempt_failed(self, number: int, attempt: int, fault: Fault) -> None:
        """Commit an attempt's fault, and what the study makes of it."""
        with contextlib.suppress(StaleAttemptError):
            if not self._run.attempt_failed(number, attempt, fault):
                self._context.release(number)

    def _ask_for_room(self, trial: Trial) -> None:
        """Say what a trial's next attempt takes, which may have grown."""
        ask_for_resources(trial, self._watch.request(number_of(trial.config)))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Commit a report and return what to do with the trial."""
        forget_answers(tune_controller, trial)
        number, attempt = number_of(trial.config), assignment_of(trial.config).attempt
        self._context.unplaced.discard(number)
        goes_on = False
        message = unpack(result)
        energy_j = energy_of(message)
        if energy_j is not None:
            with contextlib.suppress(StaleAttemptError):
                self._run.energy_used(number, attempt, energy_j)
        match message:
            case TrialFailed(fault):
                self._attempt_failed(number, attempt, fault)
            case TrialRefused(reason):
                self._context.stopping.refuse(reason)
            case TrialWaits(reason):
                self._run.notice = f"trial {number} waits: {reason}; make some, or press Ctrl-C"
                goes_on = True
            case _:
                self._run.notice = ""
                with contextlib.suppress(StaleAttemptError):
                    goes_on = self._commit(trial, number, attempt, message)
        if not goes_on:
            self._preemption.at_work.pop(number, None)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def _commit(
        self,
        trial: Trial,
        number: int,
        attempt: int,
        message: TrialStarted | Trained | TrialHandedOver | WorkerBroken,
    ) -> bool:
        """Commit what an attempt has done, and return whether it goes on."""
        match message:
            case TrialStarted(started, handle, node):
                where = {"ray_node": node, "gpu": gpus_of(trial)}
                self._note_start(number, attempt, started, where=where)
                self._preemption.at_work[number] = partial(ray.kill, handle)
                self._nodes[number] = node
                return True
            case TrialHandedOver():
                self._take_over(number, attempt, message)
                return not self._preemption.asked
            case WorkerBroken(fault):
                if number in self._nodes:  # where the node turns out to leave, it does not count
                    self._watch.lost(number, attempt, self._nodes[number])
                self._attempt_failed(number, attempt, fault)
                return True  # its next step ends the process, which must not be used again
            case Trained(result):
                return self._report(number, attempt, result)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: Any) -> None:
        """Forget what Tune keeps of a trial: the study has its results."""
        forget_statistics(trial)

    def look(self) -> None:
        """Let no idle worker hold a slot that the sweep may not use."""
        if self._controller is not None and not self._context.turn.may_start:
            let_idle_worker_go(self._controller)

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
        """Look once for the baselines in storage: the worker's folders may be on another node."""
        cache = StageCache(self._context.home.storage)
        found = {name: cache.find(name, stage.key) for name, stage in started.stages.items()}
        folders = {name: folder for name, folder in found.items() if folder is not None}
        metric = self._run.spec.objective.metric
        values, fault = ask_baselines(self._context.trainable, folders, metric)
        self._run.baselines(values)
        self._run.notice = fault
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
        if goes_on and self._context.turn.gives_back:
            self._run.give_back(number, self._context.turn.why)
            goes_on = False
        if decision.is_end:
            self._run.finish(number)
        self._context.release(number)
        return goes_on

    def _take_over(self, number: int, attempt: int, message: TrialHandedOver) -> None:
        """Commit the checkpoint of a worker that was told to stop, or why there is none."""
        if message.checkpoint is not None:
            self._run.hand_over(
                number,
                attempt,
                checkpoint=message.checkpoint,
                reached=message.reached,
                is_asked=message.is_asked,
            )
            self._context.release(number)
        elif message.is_asked:
            self._run.excuse(number, attempt, message.why)
        else:
            self._attempt_failed(
                number, attempt, Fault(FaultKind.TERMINATED, "SIGTERM", "", UNSAVED)
            )
