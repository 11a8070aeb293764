"""A trial on a worker: the Tune class around `TrialRun`, reused from trial to trial."""

from __future__ import annotations

import time
from typing import Any

from ray import tune

from posetune.api import BadInputError, TrialFailedError
from posetune.execution.checkpoints import StorageFullError
from posetune.execution.trial import Assignment, TrialRun
from posetune.spec import load_trainable

__all__ = ["ASSIGNMENT", "FAILED", "RESULT", "WAITING", "TrialActor"]

# Keys of Tune's config and result dictionaries.
ASSIGNMENT = "posetune_assignment"
RESULT = "posetune_result"
FAILED = "posetune_failed"
WAITING = "posetune_waiting"

WAIT_S = 2.0
"""Between two tries to write a checkpoint to a full disk."""


class TrialActor(tune.Trainable):
    """Runs one trial after another in one process, so that imports are paid once."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the first trial."""
        self._run: TrialRun | None = None
        self._begin(config[ASSIGNMENT])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process."""
        self._begin(new_config[ASSIGNMENT])
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch.

        The result never says `done`: that would bypass the scheduler, and with it the study.
        """
        if self._failed:
            return {FAILED: self._failed}
        assert self._run is not None
        try:
            return {RESULT: self._run.next_epoch()}
        except (TrialFailedError, BadInputError) as error:  # again would be the same
            return {FAILED: str(error)}
        except StorageFullError as error:
            time.sleep(WAIT_S)
            return {WAITING: str(error)}

    def cleanup(self) -> None:
        """End the last trial."""
        if self._run is not None:
            self._run.close()

    def _begin(self, assignment: Assignment) -> None:
        self.cleanup()
        self._failed = ""
        trainable = load_trainable(assignment.spec.trainable)()
        try:
            self._run = TrialRun(trainable, assignment)
        except (TrialFailedError, BadInputError) as error:
            self._failed = str(error)
