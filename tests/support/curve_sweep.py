"""A sweep of toy trials that follow a made-up curve, driven in this process with real checkpoints.

The calls are those of `execution`, in their order; only Ray is missing.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from posetune.home import Home
from posetune.spec.sweep import SweepSpec
from posetune.storage.store_place import StorePlace
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.search.rungs import Decision
from posetune.study.tables.database import Database
from posetune.testing.toy import Toy
from posetune.trial.checkpoints import drop_checkpoints, drop_orphans
from posetune.trial.run import Assignment, TrialRun

__all__ = ["BEST_EPOCH", "CURVE", "CurveSweep"]

CURVE = "9,8,7,6,1,2,3,4,5"
"""Errors after each of nine epochs."""
BEST_EPOCH = 5
EPOCH_S = 3600.0
"""What an epoch takes by the sweep's clock, so that a budget ends where a test says."""


class CurveSweep:
    """One driver's life at the sweep; make another one to continue it."""

    def __init__(self, database: Database, home: Home, store: Path, **changes: Any) -> None:
        """Start the sweep `curve`, or continue it; `changes` replace keys of its sweep file."""
        self.home, self.database = home, database
        spec = {
            "trainable": "posetune.testing.toy:Toy",
            "objective": {"metric": "val/error_mm", "mode": "min"},
            "search": {"x": {"float": [0.01, 1]}},
            "fixed": {"curve": CURVE},
            "sampler": {"name": "random"},
            "pruner": {"name": "asha", "max_epochs": 9},
            "budget": {"trials": 1},
            **changes,
        }
        digest = Toy.describe_store(store).digest
        self.start = SweepStart(
            name="curve",
            spec=SweepSpec.model_validate(spec),
            source="text",
            store=str(store),
            store_digest=digest,
            provenance={},
            defaults={"x": 0.5},
        )
        self.now = time.time()
        self.run = SweepRun(database, self.start, clock=lambda: self.now)
        committed = (c for t in self.run.trials for c in t.checkpoints)
        drop_orphans(home.storage, "curve", committed)

    def train(self, epochs: int = 9) -> Decision:
        """Take the next trial up and train it to an epoch, or to where it ends."""
        trial = self.run.next_trial()
        assert trial is not None
        attempt = self.run.begin_attempt(trial.number)
        assignment = Assignment(
            sweep="curve",
            trial=trial.number,
            attempt=attempt.number,
            seed=attempt.seed,
            params=attempt.params,
            spec=self.run.spec_of(trial.number),
            store=StorePlace(self.start.store, self.start.store_digest),
            storage=self.home.storage,
            checkpoints=attempt.checkpoints,
        )
        at_work = TrialRun(Toy(), assignment)
        for stage, product in at_work.started.stages.items():
            self.run.stage_used(trial.number, stage, key=product.key, trained=product.trained)
        self.run.started(trial.number, attempt.number, facts=at_work.started.placement)
        decision = Decision.CONTINUE
        try:
            while at_work.epoch < epochs and decision == Decision.CONTINUE:
                result = at_work.next_epoch()
                self.now += EPOCH_S
                decision = self.run.report(
                    trial.number,
                    attempt.number,
                    epoch=result.epoch,
                    metrics=result.metrics,
                    seconds=result.seconds,
                    checkpoint=result.checkpoint,
                )
                if decision != Decision.CONTINUE:
                    self.run.finish(trial.number)
                elif not self.run.goes_on(trial.number):
                    break
                drop_checkpoints(self.home.storage, self.run.release_checkpoints(trial.number))
        finally:
            at_work.close()
        drop_checkpoints(self.home.storage, self.run.release_checkpoints(trial.number))
        return decision

    def end(self, how: str) -> None:
        """Bring the sweep's one trial to an end: `complete`, `killed`, `budget` or `running`.

        All but the complete one stand after epoch 8; with `budget`, the sweep's `gpu_hours` have to
        end there. The driver of a running one stays.
        """
        self.train(9 if how in ("complete", "budget") else 8)
        if how in ("complete", "budget"):
            self.run.close(self.run.spent or "finished")
        elif how == "killed":
            self.run.lease.release()

    def epochs_in_storage(self, trial: int = 0) -> list[int]:
        """Return the epochs of which storage holds a checkpoint of a trial."""
        names = self.home.storage.children(f"checkpoints/curve/{trial:05d}")
        return sorted(int(name.partition("-")[0]) for name in names)
