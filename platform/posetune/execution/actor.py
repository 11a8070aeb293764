"""Runs trials on a worker: the Tune class around `TrialRun`.

A worker is reused from trial to trial where the trainable declares that it may be. It is put back
before each; where something cannot be put back, the trial is handed over to a new worker.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune

from posetune.api import BadInputError, Trainable
from posetune.execution.messages import (
    Message,
    Trained,
    TrialFailed,
    TrialHandedOver,
    TrialRefused,
    TrialStarted,
    TrialWaits,
    WorkerBroken,
    assignment_of,
    pack,
)
from posetune.execution.nodes.mps import join_mps
from posetune.execution.nodes.store_copy import own_node, store_on_node
from posetune.execution.preemption import HandOverRequest
from posetune.signals import take_signals
from posetune.spec.registration import load_trainable
from posetune.storage import Log, Storage, StorageError
from posetune.storage.log_limit import limited
from posetune.study.faults import FaultKind
from posetune.trial.checkpoints import StorageFullError, log_file, stuck_file
from posetune.trial.errors import read_error, say_memory
from posetune.trial.run import Assignment, HandOver, StoreChangedError, TrialRun
from posetune.trial.stage_lines import StageLines
from posetune.trial.worker.process_state import ProcessState
from posetune.trial.worker.stuck import StuckWatch

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
        self._watch: StuckWatch | None = None
        self._terminated = False
        """Whether a SIGTERM or the driver's stop file has told the trial to stop."""
        self._before: ProcessState | None = None
        """What the process was like before its first trial."""
        self._signalled = False
        """Whether a SIGTERM has."""
        self._begin(assignment_of(config))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process."""
        self._begin(assignment_of(new_config))
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch and say how it went; the first step only says that the trial stands."""
        self._end_if_it_must()
        with take_signals(self._take_sigterm, (signal.SIGTERM,)):
            try:
                return pack(self._step())
            except StorageFullError as error:
                time.sleep(WAIT_S)
                return pack(TrialWaits(str(error)))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - the border of a process
                return pack(self._judge(error))
            finally:
                self._log.keep()

    def cleanup(self) -> None:
        """End the last trial."""
        if self._run is not None:
            self._run.close()
            self._run = None
        if self._hand_over_request is not None:
            self._hand_over_request.close()
        if self._watch is not None:
            self._watch.close()
        self._log.close()

    def _begin(self, assignment: Assignment) -> None:
        self.cleanup()
        left = self._before.restore() if self._before is not None else []
        self._log = _write_to(assignment.storage, log_file(assignment.sweep, assignment.trial))
        self._node = own_node()
        self._hand_over_request = HandOverRequest(
            assignment.storage, assignment.sweep, node=self._node
        )
        self._assignment = assignment
        mark = stuck_file(assignment.sweep, assignment.trial, assignment.attempt)
        self._watch = StuckWatch(
            limit_s=assignment.spec.budget.stuck_after,
            median_s=assignment.median_epoch_s,
            leave_mark=partial(assignment.storage.touch, mark),
        )
        self._handed_over = False
        self._broken = ""
        """Why the process is to end with the next step; empty while it may go on."""
        self._waits_for_storage = False
        """Whether the trial does not stand yet, because storage did not answer."""
        self._first: Message | None = self._start_elsewhere(left) if left else self._start()
        """The message that the next step returns instead of training; None once it was returned."""

    def _start_elsewhere(self, left: list[str]) -> Message:
        """Leave the trial to a new worker, because this one is not as new."""
        self._handed_over = True
        return TrialHandedOver(
            None, why=f"its worker was replaced: {left[0]} since the trial before"
        )

    def _start(self) -> Message:
        """Build the trial, and return what the driver is to know of it."""
        try:
            with take_signals(self._take_sigterm, (signal.SIGTERM,)):
                if self._assignment.spec.resources.mps:  # before anything uses CUDA
                    print(join_mps(), flush=True)  # noqa: T201 - into the trial's log
                trainable = load_trainable(self._assignment.spec.trainable)
                self._before = self._before or ProcessState()
                self._run = TrialRun(
                    trainable(),
                    _with_store_here(self._assignment, trainable),
                    StageLines(self._log),
                    told_to_stop=self._told_to_stop,
                )
            return TrialStarted(self._run.started, _own_handle(), self._node)
        except StorageError as error:
            return TrialWaits(str(error))
        except StoreChangedError as error:
            return TrialRefused(str(error))
        except HandOver:
            self._handed_over = True
            return TrialHandedOver(None, is_asked=not self._signalled)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the border of a process
            return self._judge(error)

    def _judge(self, error: BaseException) -> Message:
        """Write an error into the trial's log, and return what follows from it."""
        if isinstance(error, SystemExit) and self._signalled:
            raise error  # Ray ends the process at its second SIGTERM
        traceback.print_exception(error)
        fault = read_error(error)
        if fault.kind == FaultKind.MEMORY:
            fault = say_memory(fault, self._assignment)
        if fault.kind in (FaultKind.TOLD, FaultKind.CODE):  # another try would fail alike
            return TrialFailed(fault, self._take_energy_j())
        self._broken = fault.line
        return WorkerBroken(fault, self._take_energy_j())

    def _take_energy_j(self) -> float | None:
        return None if self._run is None else self._run.take_energy_j()

    def _end_if_it_must(self) -> None:
        """Let Tune replace this process, once the driver has heard what there is to say."""
        if self._first is not None or self._waits_for_storage:
            return
        if self._broken:
            raise RuntimeError(self._broken)
        if self._handed_over:
            raise RuntimeError("the worker was told to stop (SIGTERM)")

    def _step(self) -> Message:
        if self._first is None and self._waits_for_storage:
            time.sleep(WAIT_S)
            self._first = self._start()
        if self._first is not None:
            self._waits_for_storage = isinstance(self._first, TrialWaits)
            first, self._first = self._first, None
            return first
        assert self._run is not None  # the trial stands, or the process has ended
        assert self._watch is not None
        try:
            with self._watch.epoch():
                return Trained(self._run.next_epoch())
        except HandOver:
            self._handed_over = True
            saved = self._run.hand_over()
            return TrialHandedOver(
                saved,
                reached=self._run.reached,
                is_asked=not self._signalled,
                energy_j=self._run.take_energy_j(),
            )

    def _told_to_stop(self) -> bool:
        if self._watch is not None:
            self._watch.beat()
        request = self._hand_over_request
        self._terminated = self._terminated or (request is not None and request.is_there)
        return self._terminated

    def _take_sigterm(self, number: signal.Signals) -> bool:
        """Ask the trial to stop at the first SIGTERM; let Ray end the process at the second."""
        was_terminated, self._terminated = self._terminated, True
        self._signalled = True
        return not was_terminated


def _with_store_here(assignment: Assignment, trainable: type[Trainable]) -> Assignment:
    """Return the assignment with the address by which this node reads the store."""
    place = assignment.store
    try:
        here = replace(place, address=store_on_node(place, trainable))
        return replace(assignment, store=here)
    except BadInputError as error:
        raise StoreChangedError(str(error)) from error


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
        return limited(log)
    return Log(Path(os.devnull))


def _own_handle() -> Any:
    """Return Ray's handle of this worker, by which the driver can kill it on any node."""
    return ray.get_runtime_context().current_actor
