"""Trains one trial in this process, to debug, test or profile a trainable without Ray."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Mapping
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
from posetune.trial.run import Assignment, EpochResult, HandOver, Started, TrialRun

__all__ = ["SingleTrial", "forget_single", "train_single"]


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
    """A JSON file that remembers the newest checkpoint, so that the same command continues."""

    @property
    def sweep(self) -> str:
        """The name of its folder; a sweep's name starts with a letter or digit, so never one's."""
        return f".train-{self.name}"


def forget_single(trial: SingleTrial) -> None:
    """Delete the record and the checkpoints of an earlier training of this name."""
    trial.record.unlink(missing_ok=True)
    trial.storage.remove(trial_folder(trial.sweep, 0))


def train_single(
    trial: SingleTrial,
    trainable: type[Trainable],
    *,
    on_start: Callable[[Started], None],
    on_epoch: Callable[[EpochResult], None],
    progress: Progress = silent,
    seconds: float | None = None,
) -> str:
    """Train to the last epoch, continuing from the newest checkpoint; return where the model is.

    With `seconds`, the training ends before an epoch that would not be done by then, stages
    included, but never before the first; the same command again goes on.

    Raises:
        BadInputError: the record is of another configuration.
        KeyboardInterrupt: SIGINT or SIGTERM came; the epoch under way is saved where it was.
    """
    what = [trial.spec.trainable, trial.spec.fixed, dict(trial.params)]
    identity = digest_json([*what, trial.seed, trial.store_digest])
    checkpoints = _read_record(trial.record, identity)
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
        checkpoints=tuple(reversed(checkpoints)),
    )

    def keep(checkpoint: CheckpointRecord) -> None:
        checkpoints.append(checkpoint)
        _write_record(trial.record, identity, checkpoints[-2:])
        drop_checkpoints(trial.storage, checkpoints[:-2])
        del checkpoints[:-2]

    asked: list[signal.Signals] = []

    def ask(number: signal.Signals) -> bool:
        asked.append(number)
        return True

    with take_signals(ask):
        try:
            run = TrialRun(trainable(), assignment, progress, told_to_stop=lambda: bool(asked))
        except HandOver:
            raise KeyboardInterrupt from None
        on_start(run.started)
        try:
            longest = -math.inf
            while not run.finished and time.monotonic() + longest <= ends:
                result = run.next_epoch()
                longest = max(longest, result.seconds)
                keep(result.checkpoint)
                on_epoch(result)
            if not run.finished:
                keep(run.conclude())
        except HandOver:
            if (saved := run.hand_over()) is not None:
                keep(saved)
            raise KeyboardInterrupt from None
        finally:
            run.close()
    return trial.storage.where(f"{checkpoints[-1].folder}/model")


def _read_record(path: Path, identity: str) -> list[CheckpointRecord]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        checkpoints = [CheckpointRecord(**values) for values in record["checkpoints"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path}: damaged ({error}); delete it, or give --fresh") from error
    if record["identity"] != identity:
        raise BadInputError(
            f"{path}: belongs to another configuration, seed or store; give --fresh to start "
            "again, or another --name"
        )
    return checkpoints


def _write_record(path: Path, identity: str, checkpoints: list[CheckpointRecord]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"identity": identity, "checkpoints": [asdict(c) for c in checkpoints]}
    write_whole(path, json.dumps(content, indent=1))
