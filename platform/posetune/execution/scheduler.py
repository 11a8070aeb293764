"""Tune's scheduler over the study: the point where every report is committed before anything acts.

`on_trial_result` is the first code of ours that sees a result; it is synchronous, and the worker
waits for its answer. Retries while the database is away happen inside it, because an exception in
a scheduler ends the sweep.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from posetune.api import Trainable
from posetune.execution.actor import ASSIGNMENT, FAILED, RESULT, WAITING
from posetune.execution.searcher import NUMBER
from posetune.execution.trial import Assignment, EpochResult
from posetune.study.rungs import Decision
from posetune.study.sweep import Attempt, StaleAttemptError, SweepRun

__all__ = ["MAX_ATTEMPTS", "StudyScheduler"]


MAX_ATTEMPTS = 4
"""A trial whose worker died this often is told FAILED."""


class StudyScheduler(FIFOScheduler):
    """Reports to the study and does what it decides."""

    def __init__(
        self,
        run: SweepRun,
        trainable: type[Trainable],
        *,
        assign: Callable[[Attempt], Assignment],
        release: Callable[[int], None],
    ) -> None:
        super().__init__()
        self._run = run
        self._trainable = trainable
        self._assign = assign
        self._release = release

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Begin an attempt: called for a new trial, and again after its worker has died."""
        number = _number(trial)
        attempt = self._run.begin_attempt(number)
        # The study counts, over all lives of the driver; Tune is told how many are left.
        left = max(0, MAX_ATTEMPTS - 1 - attempt.crashes)
        trial.max_failures = trial.run_metadata.num_failures + left
        trial.set_config({NUMBER: number, ASSIGNMENT: self._assign(attempt)})

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Remember why the worker died, in case Tune gives the trial up."""
        record = self._run.trials[_number(trial)]
        last_line = _error_text(trial).strip().splitlines()[-1]
        record.reason = f"its worker died {record.crashes + 1} times, at last of: {last_line}"

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Commit a report and return what to do with the trial."""
        number = _number(trial)
        if FAILED in result:
            self._run.fail(number, result[FAILED])
            self._release(number)
            return str(TrialScheduler.STOP)
        if WAITING in result:
            self._run.notice = (
                f"trial {number} waits: {result[WAITING]}; make some, or press Ctrl-C"
            )
            return str(TrialScheduler.CONTINUE)
        self._run.notice = ""
        epoch: EpochResult = result[RESULT]
        try:
            self._note_stages(number, epoch)
            decision = self._run.report(
                number,
                trial.config[ASSIGNMENT].attempt,
                epoch=epoch.epoch,
                metrics=epoch.metrics,
                seconds=epoch.seconds,
                checkpoint=epoch.checkpoint,
            )
        except StaleAttemptError:
            return str(TrialScheduler.STOP)
        if decision == Decision.CONTINUE:
            verdict = str(TrialScheduler.CONTINUE)
        else:
            self._run.finish(number)
            verdict = str(TrialScheduler.STOP)
        self._release(number)
        return verdict

    def _note_stages(self, number: int, epoch: EpochResult) -> None:
        """Record the stages with the first report of a trial, and the baselines they hold."""
        for name, stage in epoch.stages.items():
            self._run.stage_used(number, name, key=stage.key, trained=stage.trained)
        if not self._run.has_baselines:
            folders = {name: stage.folder for name, stage in epoch.stages.items()}
            metric = self._run.spec.objective.metric
            self._run.baselines(self._trainable.baselines(folders, metric))

    def debug_string(self) -> str:
        """Return nothing: the sweep has a table of its own."""
        return ""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study is the truth, and Tune's state is never read back."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _error_text(trial: Trial) -> str:
    """Return the trace of a worker's death, which Tune writes beside the driver."""
    if trial.error_file:
        with contextlib.suppress(OSError):
            return Path(trial.error_file).read_text(encoding="utf-8") or "no message"
    return "no message"


def _number(trial: Trial) -> int:
    return int(trial.config[NUMBER])
