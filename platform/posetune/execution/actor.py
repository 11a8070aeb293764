"""Runs trials on a worker: the Tune class around `TrialRun`, reused from trial to trial."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

from posetune.api import BadInputError, TrialFailedError
from posetune.execution.messages import (
    Message,
    Trained,
    TrialFailed,
    TrialHandedOver,
    TrialRefused,
    TrialStarted,
    TrialWaits,
    assignment_of,
    pack,
)
from posetune.execution.preemption import HandOverRequest
from posetune.signals import take_signals
from posetune.spec.registration import load_trainable
from posetune.storage import Log, Storage, StorageError
from posetune.trial.checkpoints import StorageFullError, log_file
from posetune.trial.run import Assignment, HandOver, StoreChangedError, TrialRun
from posetune.trial.stage_lines import StageLines

__all__ = ["TrialActor"]

WAIT_S = 2.0
"""Time between two tries to reach storage that takes nothing, in seconds."""


class TrialActor(tune.Trainable):
    """Runs one trial after another in one process, so that imports are paid once.

    A SIGTERM (the node is taken away) or the driver's stop file breaks the epoch under way off: the
    trial saves where it is, and its next attempt goes on from there.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the first trial."""
        self._run: TrialRun | None = None
        self._log = Log(Path(os.devnull))
        self._hand_over_request: HandOverRequest | None = None
        self._terminated = False
        """Whether a SIGTERM or the driver's stop file has told the trial to stop."""
        self._begin(assignment_of(config))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process."""
        self._begin(assignment_of(new_config))
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch and say how it went; the first step only says that the trial stands."""
        with take_signals(self._take_sigterm, (signal.SIGTERM,)):
            try:
                return pack(self._step())
            except (TrialFailedError, BadInputError) as error:  # another try would fail alike
                return pack(TrialFailed(str(error)))
            except StorageFullError as error:
                time.sleep(WAIT_S)
                return pack(TrialWaits(str(error)))
            finally:
                self._log.keep()

    def cleanup(self) -> None:
        """End the last trial."""
        if self._run is not None:
            self._run.close()
            self._run = None
        if self._hand_over_request is not None:
            self._hand_over_request.close()
        self._log.close()

    def _begin(self, assignment: Assignment) -> None:
        self.cleanup()
        self._log = _write_to(assignment.storage, log_file(assignment.sweep, assignment.trial))
        self._node = ray.get_runtime_context().get_node_id()
        self._hand_over_request = HandOverRequest(
            assignment.storage, assignment.sweep, node=self._node
        )
        self._assignment = assignment
        self._handed_over = False
        self._waits_for_storage = False
        """Whether the trial does not stand yet, because storage did not answer."""
        self._first: Message | None = self._start()
        """The message that the next step returns instead of training; None once it was returned."""

    def _start(self) -> Message:
        """Build the trial, and return what the driver is to know of it."""
        try:
            with take_signals(self._take_sigterm, (signal.SIGTERM,)):
                trainable = load_trainable(self._assignment.spec.trainable)()
                self._run = TrialRun(
                    trainable,
                    self._assignment,
                    StageLines(self._log),
                    told_to_stop=self._told_to_stop,
                )
            return TrialStarted(self._run.started, _own_handle(), self._node)
        except StorageError as error:
            return TrialWaits(str(error))
        except (TrialFailedError, BadInputError) as error:
            return TrialFailed(str(error))
        except StoreChangedError as error:
            return TrialRefused(str(error))
        except HandOver:
            self._handed_over = True
            return TrialHandedOver(None)

    def _step(self) -> Message:
        if self._first is None and self._waits_for_storage:
            time.sleep(WAIT_S)
            self._first = self._start()
        if self._first is not None:
            self._waits_for_storage = isinstance(self._first, TrialWaits)
            first, self._first = self._first, None
            return first
        if self._handed_over or self._run is None:
            raise RuntimeError("the worker was told to stop (SIGTERM)")
        try:
            return Trained(self._run.next_epoch())
        except HandOver:
            self._handed_over = True
            return TrialHandedOver(self._run.hand_over())

    def _told_to_stop(self) -> bool:
        request = self._hand_over_request
        self._terminated = self._terminated or (request is not None and request.is_there)
        return self._terminated

    def _take_sigterm(self, number: signal.Signals) -> bool:
        """Ask the trial to stop at the first SIGTERM; let Ray end the process at the second."""
        was_terminated, self._terminated = self._terminated, True
        return not was_terminated


def _write_to(storage: Storage, name: str) -> Log:
    """Append what this process prints to a log, if there is space for one."""
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
    """Return Ray's handle of this worker, by which the driver can kill it on any node."""
    return ray.get_runtime_context().current_actor
