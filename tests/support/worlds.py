"""Studies with several sweeps that need things of each other, made from a seed and without Ray.

The sweeps are driven in this process with real checkpoints, logs and stage products in storage.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.commands import run_here

from posetune.home import Home
from posetune.spec.sweep import SweepSpec
from posetune.storage import Storage, open_storage
from posetune.storage.digest import digest_folder
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.reading import read_sweep, sweep_names
from posetune.study.records import CheckpointRecord
from posetune.study.search.rungs import Decision
from posetune.study.tables import journal
from posetune.study.tables.database import Database, open_database
from posetune.study.tables.whole_sweep import read_rows
from posetune.study.view import SweepView
from posetune.testing.toy import Toy
from posetune.trial.checkpoints import drop_checkpoints, log_file, trial_folder

__all__ = ["World", "go_on", "random_world"]

MAX_EPOCHS = 4
SPEC = {
    "trainable": "posetune.testing.toy:Toy",
    "objective": {"metric": "val/error_mm", "mode": "min"},
    "search": {"x": {"float": [0.1, 1.5]}, "depth": {"int": [2, 8]}},
    "pruner": {"max_epochs": MAX_EPOCHS, "grace_epochs": 1, "reduction_factor": 2},
}
DEFAULTS = {"x": 0.3, "depth": 4}


@dataclass
class Kind:
    """Where the studies, storages and backups of a test are."""

    addresses: list[str]
    """Those of empty study databases; SQLite in the home where there is none left."""
    bucket: str = ""


class World:
    """A home, its study, and commands in it."""

    def __init__(
        self, folder: Path, address: str, store: Path, *, storage: str = "", tracking: str = ""
    ) -> None:
        """Open the home `home` of a folder.

        Args:
            folder: where the home is.
            address: that of its study.
            store: the sweeps' data.
            storage: address of its storage; the home's folder by default.
            tracking: address of its MLflow; the home's file by default.
        """
        self.folder, self.address, self.store = folder, address, store
        given = {"POSETUNE_STORAGE": storage, "MLFLOW_TRACKING_URI": tracking}
        self.environment = {
            "POSETUNE_DATABASE": address,
            **{name: value for name, value in given.items() if value},
        }
        home = Home.resolve(folder / "home").prepare()
        changes = {
            "database": address,
            "storage": open_storage(storage) if storage else home.storage,
            "tracking": tracking or home.tracking,
        }
        self.home = home.model_copy(update=changes)
        self.database: Database = open_database(address)

    def command(self, *words: object, person: str = "ana@laptop") -> Any:
        """Run a command in this process."""
        environment = {**self.environment, "POSETUNE_PERSON": person}
        return run_here(*words, folder=self.folder, environment=environment)

    def sweep(
        self,
        name: str,
        *,
        trials: int = 4,
        seed: int = 0,
        start_from: Sequence[str] = (),
        epochs: int = 1_000,
        by: str = "ana@laptop",
        gpu: float = 0.0,
    ) -> SweepView:
        """Start a sweep, or go on with it, until it is over or has reported some epochs."""
        changes = {
            "sampler": {"seed": seed, "startup": 2, "start_from": list(start_from)},
            "budget": {"trials": trials},
            "resources": {"gpu": gpu},
        }
        start = self._start(name, by, changes)
        run = SweepRun(self.database, start)
        order = random.Random(f"{name} {seed}")
        try:
            while epochs > 0 and (trial := run.next_trial()) is not None:
                epochs -= self._train(run, name, trial.number, order, most=epochs)
            if run.finished:
                run.close(run.finished)
        finally:
            run.lease.release()
        return self.view(name)

    def driver(self, name: str) -> SweepRun:
        """Return a driver of a sweep that is there; its lease is to be given back."""
        view = self.view(name)
        where = view.store, view.store_digest
        return SweepRun(
            self.database, SweepStart(name, view.spec, view.source, *where, {}, DEFAULTS)
        )

    def view(self, name: str) -> SweepView:
        """Return a sweep."""
        return read_sweep(self.database, name)

    @property
    def names(self) -> list[str]:
        """The sweeps of the study, in the order of their names."""
        return sorted(sweep_names(self.database))

    def everything_of(self, name: str) -> dict[str, Any]:
        """Return all that study and storage hold of a sweep, and of the products it has used."""
        view = self.view(name)
        with self.database.reading() as connection:
            row = journal.find_sweep(connection, name)
            assert row is not None
            rows, runs = read_rows(connection, row), journal.read_runs(connection, view.id)
        storage = self.home.storage
        saved = [c.folder for t in view.trials for c in t.checkpoints]
        used = [f"stages/{s}/{key}" for t in view.trials for s, key in t.stages.items()]
        folders = {f: _digest(storage, f) for f in [*saved, *used]}
        logs = [storage.read_log(log_file(name, t.number)) for t in view.trials]
        return {"rows": rows, "runs": runs, "folders": folders, "logs": logs}

    def outcome(self, name: str) -> list[Any]:
        """Return what must not depend on times."""
        trials = self.view(name).trials
        return [[t.number, t.params, t.seed, t.state, t.epochs, t.value] for t in trials]

    def _start(self, name: str, by: str, changes: dict[str, Any]) -> SweepStart:
        spec = SweepSpec.model_validate({**SPEC, **changes})
        digest = Toy.describe_store(self.store).digest
        source = "trainable: posetune.testing.toy:Toy\n"
        return SweepStart(name, spec, source, str(self.store), digest, {}, DEFAULTS, by)

    def _train(
        self, run: SweepRun, name: str, number: int, order: random.Random, *, most: int
    ) -> int:
        """Train a trial to its end, or for some epochs; return how many it reported."""
        attempt = run.begin_attempt(number)
        depth = int(attempt.params["depth"])
        facts = {"node": "here", "device": "cpu", "threads": 1}
        run.started(number, attempt.number, facts=facts)
        run.stage_used(number, "floor", key=f"{depth}" * 64, trained=self._build(depth))
        log = self.home.storage.log(log_file(name, number))
        log.file.write_text(f"trial {number}\n")
        log.close()
        reported, decision = 0, Decision.CONTINUE
        while decision == Decision.CONTINUE and reported < most:
            epoch = run.trials[number].epoch + 1
            decision = run.report(
                number,
                attempt.number,
                epoch=epoch,
                metrics={"val/error_mm": abs(float(attempt.params["x"]) - 0.7) + 1 / epoch},
                seconds=1.0,
                checkpoint=self._save(name, number, attempt.number, epoch=epoch, order=order),
            )
            reported += 1
            if decision.is_end:
                run.finish(number)
            drop_checkpoints(self.home.storage, run.release_checkpoints(number))
        return reported

    def _save(
        self, name: str, number: int, attempt: int, *, epoch: int, order: random.Random
    ) -> CheckpointRecord:
        folder = f"{trial_folder(name, number)}/{epoch:05d}-{attempt}-{order.getrandbits(32):08x}"
        with self.home.storage.writing(folder) as partial:
            (partial / "state").mkdir()
            (partial / "state" / "state.bin").write_bytes(order.randbytes(64))
            if epoch == MAX_EPOCHS:
                for part, write in (("model", Toy().export), ("figures", Toy().draw)):
                    (partial / part).mkdir()
                    write(partial / part)
            digest = digest_folder(partial)
        return CheckpointRecord(attempt, epoch, folder, digest, 64)

    def _build(self, depth: int) -> bool:
        place = f"stages/floor/{f'{depth}' * 64}"
        if self.home.storage.exists(f"{place}/product.json"):
            return False
        with self.home.storage.writing(place) as partial:
            (partial / "product.json").write_text("{}")
        return True


def _digest(storage: Storage, name: str) -> str:
    with storage.reading(name) as folder:
        return digest_folder(folder) if folder is not None else "gone"


def random_world(folder: Path, address: str, store: Path, seed: int) -> World:
    """Make a study of three to five sweeps: some learn from others, some are not at their end.

    The sweep `heir` is not at its end, and has learned from one that is.
    """
    draw = random.Random(seed)
    world = World(folder, address, store)
    world.sweep("first", seed=draw.randrange(100))
    names = ["first"]
    for i in range(draw.randint(1, 3)):
        name = draw.choice([f"sweep-{i}", f"first.{i}", f"first-{i}"])
        learned = _learned(world, names, draw)
        epochs = draw.choice([1_000, draw.randint(1, 6)])
        world.sweep(name, seed=draw.randrange(100), start_from=learned, epochs=epochs)
        names.append(name)
    learned = ["first", *_learned(world, names[1:], draw)]
    world.sweep("heir", seed=draw.randrange(100), start_from=learned, epochs=2)
    return world


def _learned(world: World, names: Sequence[str], draw: random.Random) -> list[str]:
    """Return some of the sweeps that others can learn from."""
    taught = [name for name in names if any(t.state.has_value for t in world.view(name).trials)]
    return draw.sample(taught, k=draw.randint(0, len(taught)))


def go_on(world: World, name: str) -> list[Any]:
    """Run what is left of a sweep, and return its outcome."""
    spec = world.view(name).spec
    seed = spec.sampler.seed
    world.sweep(name, seed=int(seed), start_from=spec.sampler.start_from)
    return world.outcome(name)
