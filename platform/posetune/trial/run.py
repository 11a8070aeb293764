"""Runs one trial in a worker process, without Ray: stages, epochs and checkpoints.

A trial obtains its shared stages itself, in its slot. Tasks of their own before it would need a
slot too, which Tune holds for the actor that it keeps for reuse (tried: the two waited for each
other); and the slots that wait for one stage build the others meanwhile.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posetune.accelerator import CUDA, Accelerator, processor_threads
from posetune.api import (
    BadInputError,
    Progress,
    Stage,
    StoreSummary,
    Trainable,
    TrialContext,
    TrialFailedError,
    silent,
)
from posetune.metrics import MetricError, read_metrics
from posetune.spec.loading import configure
from posetune.spec.parameters import Scalar
from posetune.spec.sweep import Resources, SweepSpec
from posetune.stages.cache import StageCache, stage_key
from posetune.storage import Storage, open_folder
from posetune.storage.store_place import StorePlace
from posetune.study.records import CheckpointRecord
from posetune.trial.checkpoints import (
    StorageFullError,
    newest_intact,
    trial_folder,
    write_checkpoint,
)
from posetune.trial.energy import EnergyMeter
from posetune.trial.processes import TrialProcesses
from posetune.trial.worker.foreign_mlflow import mlflow_refused
from posetune.trial.worker.process_state import seed_process

__all__ = [
    "Assignment",
    "EpochResult",
    "HandOver",
    "StageProduct",
    "Started",
    "StoreChangedError",
    "TrialRun",
    "require_device",
]


class HandOver(BaseException):
    """The trial was told to stop where it is.

    It is no error, and derives from BaseException so that no `except Exception` swallows it.
    """


class StoreChangedError(RuntimeError):
    """The store is not the one that the sweep was started on; no trial may train on it."""


@dataclass(frozen=True)
class Assignment:
    """What a trial's process needs to know; plain values that travel to any node."""

    sweep: str
    trial: int
    attempt: int
    seed: int
    params: Mapping[str, Scalar]
    spec: SweepSpec
    store: StorePlace
    storage: Storage
    checkpoints: tuple[CheckpointRecord, ...]
    """Committed checkpoints that the attempt may continue from, newest first."""
    parent: int | None = None
    """The trial whose checkpoint is the last of them, where the trial never begins anew."""
    checkpoints_in: Storage | None = None
    """Where they lie; None if they are in `storage`, as everything else."""
    median_epoch_s: float = 0.0
    """The median epoch of the sweep so far, in seconds; 0 where none has ended."""
    stage_keys: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Keys of the stage products that the sweep used before its present driver, by stage."""


@dataclass(frozen=True)
class StageProduct:
    """A shared stage as a trial found it."""

    key: str
    folder: Path
    trained: bool
    """Whether this trial trained the stage; otherwise the product was there already."""


@dataclass(frozen=True)
class Started:
    """Where a trial that is about to train runs, and which stages it stands on."""

    stages: Mapping[str, StageProduct]
    """Shared stages whose products the trial uses."""
    placement: Mapping[str, Any]
    """Node, device, threads and process; `setup_s`, the seconds that stages and start took; and
    `checkpoint`, the folder of the checkpoint that it goes on from, empty where it begins anew."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch of a trial reported, and the time and memory that it took."""

    epoch: int
    metrics: Mapping[str, float]
    seconds: float
    """Seconds that training, validation and the checkpoint took together."""
    checkpoint: CheckpointRecord
    peak_bytes: int = 0
    """Most bytes of its GPU that the trial has held so far; 0 where trials do not share GPUs."""
    energy_j: float | None = None
    """Joules of its GPUs since the result before, or the attempt's start; None if not known."""


def require_device(resources: Resources, accelerator: Accelerator = CUDA) -> str:
    """Return the device that a trial with these resources trains on.

    Raises:
        BadInputError: a GPU is asked for and torch sees none.
    """
    if not resources.gpu:
        return "cpu"
    if not accelerator.is_there():
        raise BadInputError(
            f"resources.gpu: {resources.gpu:g}, but torch sees no GPU on this machine; run this "
            "where there is one, or set gpu: 0"
        )
    return accelerator.name


class TrialRun:
    """Runs one trial in this process."""

    @mlflow_refused()
    def __init__(
        self,
        trainable: Trainable,
        assignment: Assignment,
        progress: Progress = silent,
        *,
        told_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Obtain the stages, build the trial and load its newest whole checkpoint.

        Args:
            trainable: a new one.
            assignment: the trial.
            progress: of stages and epochs.
            told_to_stop: asked at every step of a stage or epoch; `HandOver` is raised then.

        Raises:
            BadInputError: the configuration does not fit the store or this machine.
            StoreChangedError: the store has changed since the sweep was started.
            HandOver: told to stop before anything was trained.
        """
        begun = time.monotonic()
        store, summary = _open_store(trainable, assignment)
        self._declared = [m for m in trainable.metrics if m not in summary.unavailable]
        """The metrics that every trial on this store reports."""
        self.trainable = trainable
        self.assignment = assignment
        self._told_to_stop = told_to_stop

        def between_steps(done: int, total: int, note: str = "") -> None:
            progress(done, total, note)
            self.reached = done
            if told_to_stop():
                raise HandOver

        self.reached = 0
        """How far the epoch or stage under way is, in the trainable's own count of its steps."""
        spec = assignment.spec
        config = configure(trainable.config_model, spec.fixed, assignment.params)
        self._device: Accelerator = getattr(trainable, "accelerator", CUDA)
        device = require_device(spec.resources, self._device)
        self._meter = EnergyMeter(lambda: None)
        if spec.resources.gpu:
            self._device.reset()
            gpus = max(1, int(spec.resources.gpu))
            self._meter = EnergyMeter(lambda: self._device.energy_j(gpus), spec.resources.gpu_share)
        stages = _obtain_stages(
            trainable.stages(config, store), assignment=assignment, progress=between_steps
        )
        self._work = tempfile.TemporaryDirectory(prefix=f"posetune-{assignment.trial}-")
        processes = spec.resources.processes
        context = TrialContext(
            store=store,
            seed=assignment.seed,
            work=Path(self._work.name),
            products={name: stage.folder for name, stage in stages.items()},
            device=device,
            threads=max(1, int(spec.resources.cpu / processes)),
            gpu_share=spec.resources.gpu_share,
            processes=processes,
            max_epochs=spec.pruner.max_epochs,
            progress=between_steps,
        )
        self._processes: TrialProcesses | None = None
        try:
            if processes > 1:
                context = self._start_processes(context, progress)
            seed_process(assignment.seed)
            trainable.start(config, context)
            self._continue()
        except BaseException:
            self.close()
            raise
        setup_s = round(time.monotonic() - begun, 3)
        facts = _placement(context, self._device)
        self.started = Started(stages, {**facts, "setup_s": setup_s, "checkpoint": self._begun_at})
        self._begun = time.monotonic()

    def _start_processes(self, context: TrialContext, progress: Progress) -> TrialContext:
        """Start the other processes, and return this one's context."""
        others = TrialProcesses(self.assignment.spec, self.assignment.params, context)
        self._processes = others

        def between_steps(done: int, total: int, note: str = "") -> None:
            progress(done, total, note)
            self.reached = done
            if others.between_steps(self._told_to_stop):
                raise HandOver

        return dataclasses.replace(others.context, progress=between_steps)

    def _continue(self) -> None:
        """Load the newest whole checkpoint, if there is one.

        Raises:
            TrialFailedError: there is none, and the trial goes on from another one's.
        """
        self.epoch = 0
        self._begun_at = ""
        """Folder of the checkpoint that this attempt goes on from; empty where it begins anew."""
        self._partial_s = 0.0
        """Seconds of the epoch under way that earlier attempts have trained."""
        self._unwritten: dict[str, float] | None = None
        """Metrics of an epoch that is trained but has no checkpoint yet."""
        assignment = self.assignment
        storage = assignment.checkpoints_in or assignment.storage
        with newest_intact(storage, assignment.checkpoints) as found:
            if found is None and assignment.parent is not None:
                folders = ", ".join(record.folder for record in assignment.checkpoints)
                raise TrialFailedError(
                    f"what it was to go on from is damaged or gone: {folders or 'nothing kept'}; "
                    f"its parent is trial {assignment.parent} (posetune enqueue begins one anew)"
                )
            if found is not None:
                record, folder = found
                if self._processes is not None:
                    self._processes.tell("load", str(folder / "state"))
                self.trainable.load(folder / "state")
                if self._processes is not None:
                    # Returns once the others have loaded it, too.
                    self._processes.between_steps(lambda: False)
                self.epoch, self._begun_at = record.epoch, record.folder
                self._partial_s = record.partial_s or 0.0

    @property
    def finished(self) -> bool:
        """Whether the trial has trained all its epochs."""
        return self.epoch >= self.assignment.spec.pruner.max_epochs

    @mlflow_refused()
    def next_epoch(self) -> EpochResult:
        """Train one epoch, validate and checkpoint.

        Raises:
            StorageFullError: storage takes no checkpoint now. The epoch is not lost: the next call
                only tries to write again.
            HandOver: the trial was told to stop; `hand_over` saves what it has.
            TrialFailedError: the trial cannot go on, or what it reported cannot be taken.
        """
        if self._unwritten is None:
            self._begun = time.monotonic()
            if self._processes is not None:
                self._processes.tell("epoch")
            self._unwritten = self._read(self.trainable.epoch())
            self.epoch += 1
        record = self._write(last=self.finished)
        metrics, self._unwritten = self._unwritten, None
        seconds, self._partial_s = self._trained_s(), 0.0
        peak = self._device.memory().peak if self.assignment.spec.resources.share else 0
        return EpochResult(self.epoch, metrics, seconds, record, peak, self.take_energy_j())

    def take_energy_j(self) -> float | None:
        """Return the joules since the last call, or the attempt's start; None if not known.

        An epoch's result has them already, so call it where an attempt ends without one.
        """
        return self._meter.take()

    def _read(self, reported: Any) -> dict[str, float]:
        """Return the metrics of the epoch that was just trained."""
        objective = self.assignment.spec.objective.metric
        try:
            return read_metrics(
                reported, declared=self._declared, objective=objective, is_first=self.epoch == 0
            )
        except MetricError as error:
            raise TrialFailedError(f"epoch {self.epoch + 1}: {error}") from error

    @mlflow_refused()
    def conclude(self) -> CheckpointRecord:
        """Write a checkpoint with model and figures, though epochs may be left."""
        return self._write(last=True)

    @mlflow_refused()
    def hand_over(self) -> CheckpointRecord | None:
        """Save the epoch under way where it was broken off; None where there is no space."""
        if self._unwritten is not None:
            # A whole epoch is trained and waits for space. Its checkpoint could not say so, and the
            # next attempt trains the epoch again.
            return None
        try:
            return dataclasses.replace(self._write(last=False), partial_s=self._trained_s())
        except StorageFullError:
            return None

    def _write(self, *, last: bool) -> CheckpointRecord:
        return write_checkpoint(
            self.trainable,
            self.assignment.storage,
            trial_folder(self.assignment.sweep, self.assignment.trial),
            attempt=self.assignment.attempt,
            epoch=self.epoch,
            last=last,
        )

    def _trained_s(self) -> float:
        return self._partial_s + time.monotonic() - self._begun

    def close(self) -> None:
        """End the trial's other processes and remove the scratch folder."""
        if self._processes is not None:
            self._processes.close()
        self._work.cleanup()


def _open_store(trainable: Trainable, assignment: Assignment) -> tuple[Path, StoreSummary]:
    """Return the store's folder on this node and what is in it, if it is the sweep's."""
    store = assignment.store
    try:
        folder = open_folder(store.address)
        summary = trainable.describe_store(folder)
    except BadInputError as error:
        raise StoreChangedError(
            f"store {store.address}: cannot be read any more ({error}); put the data back"
        ) from error
    if summary.digest != store.digest:
        raise StoreChangedError(
            f"store {store.address}: has changed under the running sweep, from digest "
            f"{store.digest[:12]} to {summary.digest[:12]}; put the data back"
        )
    return folder, summary


def _obtain_stages(
    stages: Sequence[Stage], *, assignment: Assignment, progress: Progress
) -> dict[str, StageProduct]:
    """Obtain the products of today's code, or those that the sweep began with.

    A sweep whose code was edited while it stood still goes on with the products that it has, so
    that its trials stay comparable.
    """
    builder = f"{assignment.sweep}/{assignment.trial}/{assignment.seed}"
    cache = StageCache(assignment.storage, builder)
    keys = {stage.name: stage_key(stage, assignment.store.digest) for stage in stages}
    for stage in stages:
        began_with = assignment.stage_keys.get(stage.name, ())
        if keys[stage.name] not in began_with:
            keys[stage.name] = cache.find_equal(stage, began_with) or keys[stage.name]
    with processor_threads(assignment.spec.resources.stage_threads):
        products = cache.obtain_all([(stage, keys[stage.name]) for stage in stages], progress)
    return {
        name: StageProduct(keys[name], product.folder, product.trained)
        for name, product in products.items()
    }


def _placement(context: TrialContext, device: Accelerator) -> dict[str, Any]:
    return {
        "node": socket.gethostname(),
        "device": context.device if context.device == "cpu" else device.describe(),
        "threads": context.threads,
        "pid": os.getpid(),
    }
