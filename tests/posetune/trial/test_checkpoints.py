"""No checkpoint that is still needed is ever deleted, whatever happens in whatever order."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.simulated_driver import happened, open_unsynced

from posetune.api import Cost, Trainable, TrialContext
from posetune.execution.nodes.plan import plan_sweep
from posetune.spec.loading import default_params
from posetune.spec.sweep import SweepSpec
from posetune.storage import open_storage
from posetune.storage.digest import digest_folder
from posetune.storage.store_place import StorePlace
from posetune.study.acts.act import RetryTrial, StopTrial
from posetune.study.acts.asking import ask
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.reading import read_sweep
from posetune.study.records import CheckpointRecord
from posetune.study.search.rungs import Decision
from posetune.study.tables.database import Database
from posetune.study.view import SweepView
from posetune.testing.toy import STEPS, Toy, ToyConfig
from posetune.trial.checkpoints import (
    drop_checkpoints,
    drop_orphans,
    trial_folder,
    write_checkpoint,
)
from posetune.trial.run import Assignment, HandOver, TrialRun
from selfpose.trainable import SelfPose

MODEL_BYTES = 2000


class QuickToy(Toy):
    """The toy with a model of known size, and without the time it takes to plot."""

    def draw(self, folder: Path) -> None:
        pass

    def export(self, folder: Path) -> None:
        (folder / "model.bin").write_bytes(bytes(MODEL_BYTES))


def spec_of(trials: int, slots: int = 2) -> SweepSpec:
    return SweepSpec.model_validate(
        {
            "trainable": "posetune.testing.toy:Toy",
            "objective": {"metric": "val/error_mm", "mode": "min"},
            "search": {
                "x": {"float": [0.01, 1], "log": True},
                "depth": {"int": [2, 8], "step": 2},
            },
            "pruner": {"max_epochs": 9},
            "resources": {"cpu": (os.cpu_count() or 1) / slots},
            "budget": {"trials": trials},
        }
    )


class Driver:
    """The driver and its two slots in one process: the calls of `execution`, in their order."""

    trainable: type[Trainable] = QuickToy

    def __init__(self, database: Database, folder: Path, store: Path, spec: SweepSpec) -> None:
        self.database, self.folder, self.store = database, folder / "storage", store
        self.storage = open_storage(self.folder)
        self.spec = spec
        self.digest = self.trainable.describe_store(store).digest
        self.steps_until_told: int | None = None
        self.broken: set[str] = set()
        self.most_bytes = 0
        self.start()

    def start(self) -> None:
        """What `run_sweep` does before Ray starts."""
        defaults = default_params(self.spec, self.trainable.config_model)
        sweep_start = SweepStart("s", self.spec, "text", "store", self.digest, {}, defaults)
        self.run = SweepRun(self.database, sweep_start)
        drop_orphans(self.storage, "s", (c for t in self.run.trials for c in t.checkpoints))
        self.slots: dict[int, TrialRun] = {}
        self.done = False

    def die(self) -> None:
        """The driver is killed with its workers, and the same command is given again."""
        for number in list(self.slots):
            self.kill_worker(number)
        self.run.lease.release()
        self.start()

    def fill_slots(self) -> None:
        while len(self.slots) < 2 and (trial := self.run.next_trial()) is not None:
            self.begin(trial.number)

    def begin(self, number: int) -> None:
        attempt = self.run.begin_attempt(number)
        assignment = Assignment(
            sweep="s",
            trial=number,
            attempt=attempt.number,
            seed=attempt.seed,
            params=attempt.params,
            spec=self.spec,
            store=StorePlace(str(self.store), self.digest),
            storage=self.storage,
            checkpoints=attempt.checkpoints,
        )
        slot = TrialRun(self.trainable(), assignment, told_to_stop=self.told_to_stop)
        self.run.started(number, attempt.number, facts=slot.started.placement)
        self.slots[number] = slot

    def told_to_stop(self) -> bool:
        if self.steps_until_told is not None:
            self.steps_until_told -= 1
        return self.steps_until_told == 0

    def kill_worker(self, number: int) -> None:
        self.slots.pop(number).close()

    def step(self, number: int) -> None:
        slot = self.slots[number]
        result = slot.next_epoch()
        self.most_bytes = max(self.most_bytes, self.bytes_on_disk())
        decision = self.run.report(
            number,
            slot.assignment.attempt,
            epoch=result.epoch,
            metrics=result.metrics,
            seconds=result.seconds,
            checkpoint=result.checkpoint,
        )
        if decision != Decision.CONTINUE:
            self.run.finish(number)
            self.kill_worker(number)
        drop_checkpoints(self.storage, self.run.release_checkpoints(number))

    def leave_orphans(self, number: int) -> None:
        """A worker dies after its checkpoint, before the report; another while it writes."""
        slot = self.slots[number]
        slot.next_epoch()
        partial = self.folder / trial_folder("s", number) / "00009-9-cafecafe.partial" / "state"
        partial.mkdir(parents=True, exist_ok=True)
        (partial / "half").write_bytes(b"half")
        self.kill_worker(number)
        self.begin(number)

    def hand_over(self, number: int, generator: random.Random) -> None:
        """A worker is taken away within an epoch."""
        slot = self.slots[number]
        left = STEPS - slot.trainable.steps % STEPS  # of the epoch under way
        self.steps_until_told = generator.randint(1, left)
        with pytest.raises(HandOver):
            slot.next_epoch()
        self.steps_until_told = None
        record = slot.hand_over()
        assert record is not None
        self.run.hand_over(number, slot.assignment.attempt, checkpoint=record)
        drop_checkpoints(self.storage, self.run.release_checkpoints(number))
        self.kill_worker(number)
        self.begin(number)

    def break_newest(self, number: int, generator: random.Random) -> None:
        """The newest checkpoint is damaged or lost, and then its worker dies."""
        checkpoints = self.run.trials[number].checkpoints
        if len(checkpoints) < 2 or self.broken & {c.folder for c in checkpoints}:
            return
        self.broken.add(checkpoints[-1].folder)
        folder = self.folder / checkpoints[-1].folder
        if generator.random() < 0.5:
            shutil.rmtree(folder)
        else:
            (folder / "state" / "state.json").write_text("{}")
        self.kill_worker(number)
        self.begin(number)
        assert self.slots[number].epoch == checkpoints[-2].epoch

    def bytes_on_disk(self) -> int:
        files = (self.folder / "checkpoints").rglob("*")
        return sum(p.stat().st_size for p in files if p.is_file())

    def check(self) -> None:
        """Held against the database: what is committed and needed is on disk, whole."""
        view = read_sweep(self.database, "s")
        states = {t.number: t.state for t in view.trials}
        best = best_epochs(view)
        kept = list(best)[: self.spec.keep.best]
        for number, committed in self.committed().items():
            newest = committed[-1]
            if states[number] == "FAILED":  # it ended without another: the newest that is whole
                newest = [c for c in committed if c.folder not in self.broken][-1]
            is_kept = states[number] in ("RUNNING", "COMPLETE") or number in kept
            needed = [newest] if is_kept else []
            if states[number] == "RUNNING":  # and the newest of those that are less far
                needed += [c for c in committed if c.progress < newest.progress][-1:]
            if is_kept and number in best:
                needed += [c for c in standing(committed) if c.progress == (best[number], False)]
            whole = [self.is_whole(c) for c in needed]
            assert all(w or c.folder in self.broken for w, c in zip(whole, needed, strict=True))
            assert any(whole) or not needed

    def committed(self) -> dict[int, list[CheckpointRecord]]:
        found: dict[int, list[CheckpointRecord]] = {}
        for event in happened(self.database, object):
            saved = getattr(event, "checkpoint", None)
            if saved is not None:
                found.setdefault(event.trial, []).append(saved)
        return found

    def is_whole(self, checkpoint: CheckpointRecord) -> bool:
        folder = self.folder / checkpoint.folder
        return folder.is_dir() and digest_folder(folder) == checkpoint.digest


def best_epochs(view: SweepView) -> dict[int, int]:
    """The best epoch of each trial, the best trial first."""
    sign = view.spec.objective.sign
    values = [(sign * r.value, r.trial, r.epoch) for r in view.reports if r.value is not None]
    found: dict[int, int] = {}
    for _, trial, epoch in sorted(values):
        found.setdefault(trial, epoch)
    return found


def standing(committed: list[CheckpointRecord]) -> list[CheckpointRecord]:
    """Those that no later one shows to have been broken."""
    later = [committed[i + 1 :] for i in range(len(committed))]
    return [
        c
        for c, after in zip(committed, later, strict=True)
        if all(one.progress > c.progress for one in after)
    ]


def happen(driver: Driver, generator: random.Random) -> None:
    """One event."""
    driver.fill_slots()
    if not driver.slots:
        driver.done = True
        return
    number = generator.choice(list(driver.slots))
    draw = generator.random()
    if draw < 0.75:
        driver.step(number)
    elif draw < 0.78:
        driver.hand_over(number, generator)
    elif draw < 0.82:
        driver.kill_worker(number)
        driver.begin(number)
    elif draw < 0.88:
        driver.leave_orphans(number)
    elif draw < 0.95:
        driver.break_newest(number, generator)
    elif draw < 0.97:
        driver.run.fail(number, "diverged")
        driver.kill_worker(number)
        drop_checkpoints(driver.storage, driver.run.release_checkpoints(number))
    else:
        driver.die()


def measured_cost(store: Path, folder: Path) -> Cost:
    toy = QuickToy()
    (folder / "floor").mkdir(parents=True)
    (folder / "floor" / "floor.json").write_text("0.1")
    toy.start(ToyConfig(), TrialContext(store, 0, folder, {"floor": folder / "floor"}))
    for _ in range(9):
        toy.epoch()
    record = write_checkpoint(toy, open_storage(folder), "c", attempt=1, epoch=1, last=False)
    return Cost(0.0, {"floor": 0.0}, round(1.05 * record.bytes), MODEL_BYTES)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_no_needed_checkpoint_is_ever_deleted(tmp_path: Path, toy_store: Path, seed: int) -> None:
    generator = random.Random(seed)
    driver = Driver(open_unsynced(tmp_path / "study.db"), tmp_path, toy_store, spec_of(trials=8))
    while not driver.done:
        happen(driver, generator)
        driver.check()
    driver.die()
    on_disk = {p for p in (driver.folder / "checkpoints").glob("*/*/*")}
    needed = {driver.folder / c.folder for t in driver.run.trials for c in t.checkpoints}
    assert on_disk == needed
    best = best_epochs(read_sweep(driver.database, "s"))
    kept = list(best)[: driver.spec.keep.best]
    for trial in driver.run.trials:
        is_kept = trial.state == "COMPLETE" or trial.number in kept
        assert len(trial.checkpoints) <= 2
        assert bool(trial.checkpoints) == is_kept
        assert not is_kept or best[trial.number] in [c.epoch for c in trial.checkpoints]
    driver.run.lease.release()
    assert read_sweep(driver.database, "s").state == "COMPLETE"


def test_the_disk_stays_under_what_check_forecasts(tmp_path: Path, toy_store: Path) -> None:
    cost = measured_cost(toy_store, tmp_path / "cost")

    class MeasuredToy(Toy):
        @classmethod
        def forecast(cls, config: Any, context: TrialContext) -> Cost:
            return cost

    driver = Driver(open_unsynced(tmp_path / "study.db"), tmp_path, toy_store, spec_of(trials=12))
    plan = plan_sweep(driver.spec, MeasuredToy, store=toy_store, store_digest="d1")
    drive_on(driver)
    assert plan.slots == 2
    assert 0 < driver.most_bytes <= plan.disk_bytes


@pytest.mark.long
@pytest.mark.slow
def test_the_disk_stays_under_what_check_forecasts_for_the_model(
    tmp_path: Path, tiny_store: Path
) -> None:
    class ModelDriver(Driver):
        trainable = SelfPose

    database = open_unsynced(tmp_path / "study.db")
    driver = ModelDriver(database, tmp_path, tiny_store, spec_of_model(trials=2))
    plan = plan_sweep(driver.spec, SelfPose, store=tiny_store, store_digest="d1")
    drive_on(driver)
    assert driver.most_bytes <= plan.disk_bytes < 2 * driver.most_bytes


def drive_on(driver: Driver) -> None:
    generator = random.Random(0)
    while not driver.done:
        driver.fill_slots()
        driver.done = not driver.slots
        if driver.slots:
            driver.step(generator.choice(list(driver.slots)))
    driver.run.lease.release()


def spec_of_model(trials: int) -> SweepSpec:
    return SweepSpec.model_validate(
        {
            "trainable": "selfpose.trainable:SelfPose",
            "objective": {"metric": "val/p_mpjpe_mm", "mode": "min"},
            "search": {"loss_weights.flow": {"float": [0.1, 10], "log": True}},
            "fixed": {
                "mode": "lifting",
                "batch_size": 8,
                "steps_per_epoch": 2,
                "val_frames": 40,
                "lifting": {"width": 32},
                "flow": {"depth": 1, "hidden": 16, "steps": 4},
            },
            "pruner": {"name": "none", "max_epochs": 2},
            "resources": {"cpu": (os.cpu_count() or 1) / 2},
            "budget": {"trials": trials},
        }
    )


def damage_newest(driver: Driver, damage: str) -> None:
    """Damage or lose the newest checkpoint of trial 0."""
    newest = driver.folder / driver.run.trials[0].checkpoints[-1].folder
    if damage == "missing":
        shutil.rmtree(newest)
        return
    file = newest / "state" / "toy.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("end", ["fails", "is stopped at rest"])
@pytest.mark.parametrize("damage", ["corrupt", "missing"])
def test_a_trial_that_ends_after_its_newest_checkpoint_was_damaged_keeps_the_whole_one(
    tmp_path: Path, toy_store: Path, damage: str, end: str
) -> None:
    driver = Driver(open_unsynced(tmp_path / "study.db"), tmp_path, toy_store, spec_of(trials=1))
    driver.fill_slots()
    for _ in range(4):
        driver.step(0)
    damage_newest(driver, damage)
    driver.die()
    driver.fill_slots()
    assert driver.slots[0].epoch == 3
    if end == "fails":
        driver.run.fail(0, "diverged")
        drop_checkpoints(driver.storage, driver.run.release_checkpoints(0))
        driver.kill_worker(0)
        driver.run.lease.release()
    else:
        driver.kill_worker(0)
        driver.run.lease.release()
        ask(driver.database, "s", StopTrial(trial=0), by="ana@laptop")
    (trial,) = read_sweep(driver.database, "s").trials
    assert trial.state in ("FAILED", "STOPPED")
    assert [saved.epoch for saved in trial.checkpoints] == [3]
    assert all(driver.is_whole(saved) for saved in trial.checkpoints)
    ask(driver.database, "s", RetryTrial(trial=0), by="ana@laptop")
    driver.start()
    driver.fill_slots()
    assert driver.slots[0].epoch == 3, "it goes on, and does not begin anew"
    driver.kill_worker(0)
    driver.run.lease.release()


@pytest.mark.parametrize("damage", ["corrupt", "missing"])
def test_a_trial_whose_newest_checkpoint_is_broken_goes_on_from_the_one_before(
    tmp_path: Path, toy_store: Path, damage: str
) -> None:
    driver = Driver(open_unsynced(tmp_path / "study.db"), tmp_path, toy_store, spec_of(trials=1))
    driver.fill_slots()
    for _ in range(4):
        driver.step(0)
    before = read_sweep(driver.database, "s").reports
    damage_newest(driver, damage)
    driver.die()
    driver.fill_slots()
    assert driver.slots[0].epoch == 3
    driver.step(0)
    assert read_sweep(driver.database, "s").reports == before
    # Neither is the broken one kept beside the new one: that would leave nothing to fall back on.
    assert [c.epoch for c in driver.run.trials[0].checkpoints] == [3, 4]
    assert all(driver.is_whole(c) for c in driver.run.trials[0].checkpoints)
    while driver.slots:
        driver.step(0)
    driver.run.lease.release()
    assert [r.epoch for r in read_sweep(driver.database, "s").reports] == list(range(1, 10))
