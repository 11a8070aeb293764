"""Trains one trial in this process, to debug, test or profile a trainable without Ray."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from posetune.api import BadInputError, Progress, Trainable, silent
from posetune.signals import take_signals
from posetune.spec.parameters import Scalar
from posetune.spec.sweep import SweepSpec
from posetune.storage import Storage
from posetune.storage.digest import digest_json
from posetune.storage.store_place import StorePlace
from posetune.storage.whole_files import write_whole
from posetune.study.records import CheckpointRecord
from posetune.trial.checkpoints import drop_checkpoints, trial_folder
from posetune.trial.run import Assignment, HandOver, Started, TrialRun

__all__ = ["SingleEpoch", "SingleTrial", "forget_single", "read_epochs", "train_single"]


@dataclass(frozen=True)
class SingleEpoch:
    """What one epoch reported, and how long it took."""

    epoch: int
    seconds: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class SingleTrial:
    """Describes a trial that is trained without a sweep."""

    name: str
    spec: SweepSpec
    params: Mapping[str, Scalar]
    seed: int
    store: str
    """Address of the store: a folder, or s3://..."""
    store_digest: str
    storage: Storage
    record: Path
    """A JSON file that remembers what was trained: the same command continues from it."""

    @property
    def identity(self) -> str:
        """Digest of all that decides what is trained."""
        what = [self.spec.trainable, self.spec.fixed, dict(self.params)]
        return digest_json([*what, self.seed, self.store_digest])

    @property
    def sweep(self) -> str:
        """The name of its folder; a sweep's name starts with a letter or digit, so never one's."""
        return f".train-{self.name}"


def forget_single(trial: SingleTrial) -> None:
    """Delete the record and the checkpoints of an earlier training of this name."""
    trial.record.unlink(missing_ok=True)
    trial.storage.remove(trial_folder(trial.sweep, 0))


def read_epochs(trial: SingleTrial) -> list[SingleEpoch]:
    """Return what each epoch of a training reported, whether it has ended or not.

    Raises:
        BadInputError: the record is damaged, or of another configuration.
    """
    return _read_record(trial).epochs


def train_single(
    trial: SingleTrial,
    trainable: type[Trainable],
    *,
    on_start: Callable[[Started, Sequence[SingleEpoch]], None] = lambda started, before: None,
    on_epoch: Callable[[SingleEpoch], None] = lambda result: None,
    progress: Progress = silent,
    seconds: float | None = None,
) -> str:
    """Train to the last epoch, continuing from the newest checkpoint; return where the model is.

    With `seconds`, the training ends before an epoch that would not be done by then, stages
    included, but never before the first; the same command again goes on. `on_start` hears what was
    trained before.

    Raises:
        BadInputError: the record is of another configuration.
        KeyboardInterrupt: SIGINT or SIGTERM came; the epoch under way is saved where it was.
    """
    done = _read_record(trial)
    ends = math.inf if seconds is None else time.monotonic() + seconds
    assignment = Assignment(
        sweep=trial.sweep,
        trial=0,
        attempt=1,
        seed=trial.seed,
        params=trial.params,
        spec=trial.spec,
        store=StorePlace(trial.store, trial.store_digest),
        storage=trial.storage,
        checkpoints=tuple(reversed(done.checkpoints)),
    )

    def keep(checkpoint: CheckpointRecord) -> None:
        done.checkpoints.append(checkpoint)
        _write_record(trial, _Record(done.checkpoints[-2:], done.epochs))
        drop_checkpoints(trial.storage, done.checkpoints[:-2])
        del done.checkpoints[:-2]

    asked: list[signal.Signals] = []

    def ask(number: signal.Signals) -> bool:
        asked.append(number)
        return True

    with take_signals(ask):
        try:
            run = TrialRun(trainable(), assignment, progress, told_to_stop=lambda: bool(asked))
        except HandOver:
            raise KeyboardInterrupt from None
        # It may go on from an older checkpoint than the newest.
        done.epochs[:] = [result for result in done.epochs if result.epoch <= run.epoch]
        on_start(run.started, tuple(done.epochs))
        try:
            longest = -math.inf
            while not run.finished and time.monotonic() + longest <= ends:
                result = run.next_epoch()
                longest = max(longest, result.seconds)
                done.epochs.append(SingleEpoch(result.epoch, result.seconds, result.metrics))
                keep(result.checkpoint)
                on_epoch(done.epochs[-1])
            if not run.finished:
                keep(run.conclude())
        except HandOver:
            if (saved := run.hand_over()) is not None:
                keep(saved)
            raise KeyboardInterrupt from None
        finally:
            run.close()
    return trial.storage.where(f"{done.checkpoints[-1].folder}/model")


@dataclass(frozen=True)
class _Record:
    """What was trained: the newest checkpoints, oldest first, and every epoch."""

    checkpoints: list[CheckpointRecord]
    epochs: list[SingleEpoch]


def _read_record(trial: SingleTrial) -> _Record:
    path = trial.record
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        checkpoints = [CheckpointRecord(**values) for values in record["checkpoints"]]
        epochs = [SingleEpoch(**values) for values in record.get("epochs", [])]
    except FileNotFoundError:
        return _Record([], [])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"{path}: damaged ({error}); delete it to train anew, as posetune train --fresh does"
        ) from error
    if record["identity"] != trial.identity:
        raise BadInputError(
            f"{path}: belongs to another configuration, seed or store; give another --name, or "
            "delete it to train anew, as posetune train --fresh does"
        )
    return _Record(checkpoints, epochs)


def _write_record(trial: SingleTrial, record: _Record) -> None:
    trial.record.parent.mkdir(parents=True, exist_ok=True)
    write_whole(trial.record, json.dumps({"identity": trial.identity, **asdict(record)}, indent=1))
