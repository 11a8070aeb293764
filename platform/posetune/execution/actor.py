"""A trial on a worker: the Tune class around `TrialRun`, reused from trial to trial."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune

from posetune.api import BadInputError, TrialFailedError
from posetune.execution.preemption import HandOverRequest
from posetune.spec.registration import load_trainable
from posetune.storage import Log, Storage, StorageError
from posetune.trial.checkpoints import StorageFullError, log_file
from posetune.trial.run import Assignment, HandOver, StoreChangedError, TrialRun

__all__ = [
    "ASSIGNMENT",
    "FAILED",
    "HANDED_OVER",
    "HANDLE",
    "NODE",
    "REFUSED",
    "RESULT",
    "STARTED",
    "WAITING",
    "TrialActor",
]

# Keys of Tune's config and result dictionaries.
ASSIGNMENT = "posetune_assignment"
STARTED = "posetune_started"
HANDLE = "posetune_handle"
NODE = "posetune_node"
RESULT = "posetune_result"
FAILED = "posetune_failed"
REFUSED = "posetune_refused"
WAITING = "posetune_waiting"
HANDED_OVER = "posetune_handed_over"

WAIT_S = 2.0
"""Between two tries to write a checkpoint to storage that takes none."""


class TrialActor(tune.Trainable):
    """Runs one trial after another in one process, so that imports are paid once.

    A SIGTERM (a node that is taken away) or a stop file of the driver's ends a trial in its epoch:
    it saves where it is, and the next attempt goes on from there.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the first trial."""
        self._run: TrialRun | None = None
        self._log = Log(Path(os.devnull))
        self._wish: HandOverRequest | None = None
        self._terminated = self._busy = False
        self._before = signal.signal(signal.SIGTERM, self._on_sigterm)
        self._begin(config[ASSIGNMENT])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process."""
        self._begin(new_config[ASSIGNMENT])
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch; the first step only says that the trial stands.

        The result never says `done`: that would bypass the scheduler, and with it the study.
        """
        self._busy = True
        try:
            return self._step()
        except (TrialFailedError, BadInputError) as error:  # again would be the same
            return {FAILED: str(error)}
        except StorageFullError as error:
            time.sleep(WAIT_S)
            return {WAITING: str(error)}
        finally:
            self._busy = False
            self._log.keep()

    def cleanup(self) -> None:
        """End the last trial."""
        if self._run is not None:
            self._run.close()
            self._run = None
        if self._wish is not None:
            self._wish.close()
        self._log.close()

    def _begin(self, assignment: Assignment) -> None:
        self.cleanup()
        self._log = _write_to(assignment.storage, log_file(assignment.sweep, assignment.trial))
        self._node = ray.get_runtime_context().get_node_id()
        self._wish = HandOverRequest(assignment.storage, assignment.sweep, node=self._node)
        self._assignment = assignment
        self._over = False
        self._start()

    def _start(self) -> None:
        self._first: dict[str, Any] = {}
        """What the first step answers."""
        self._waiting = False
        self._busy = True
        try:
            trainable = load_trainable(self._assignment.spec.trainable)()
            self._run = TrialRun(trainable, self._assignment, told_to_stop=self._told_to_stop)
            self._first = {STARTED: self._run.started, HANDLE: _own_handle(), NODE: self._node}
        except StorageError as error:  # tried again with every step
            self._first, self._waiting = {WAITING: str(error)}, True
        except (TrialFailedError, BadInputError) as error:
            self._first = {FAILED: str(error)}
        except StoreChangedError as error:
            self._first = {REFUSED: str(error)}
        except HandOver:
            self._first, self._over = {HANDED_OVER: None}, True
        finally:
            self._busy = False

    def _step(self) -> dict[str, Any]:
        if self._waiting and not self._first:
            time.sleep(WAIT_S)
            self._start()
        if self._first:
            first, self._first = self._first, {}
            return first
        if self._over or self._run is None:
            raise RuntimeError("the worker was told to stop (SIGTERM)")
        try:
            return {RESULT: self._run.next_epoch()}
        except HandOver:
            self._over = True
            return {HANDED_OVER: self._run.hand_over()}

    def _told_to_stop(self) -> bool:
        self._terminated = self._terminated or (self._wish is not None and self._wish.is_there)
        return self._terminated

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        """Ask the work under way to stop; without any, or asked again, end as Ray would."""
        if self._busy and not self._terminated:
            self._terminated = True
        elif callable(self._before):
            self._before(number, frame)
        else:
            raise SystemExit(1)


def _write_to(storage: Storage, name: str) -> Log:
    """Let what this process prints go to the end of a log, if there is space for one."""
    with contextlib.suppress(OSError):
        log = storage.log(name)
        file = log.file.open("ab")
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        file.close()
        return log
    return Log(Path(os.devnull))


def _own_handle() -> Any:
    """Return what the driver kills a worker by that does not listen, on whatever node it is."""
    return ray.get_runtime_context().current_actor
