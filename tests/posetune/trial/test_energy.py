"""The energy of an attempt, by the counter of its devices."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.metered import MeteredDevice, MeteredToy

from posetune.accelerator import nvidia_energy_j
from posetune.execution.messages import Trained, TrialHandedOver, TrialWaits, energy_of
from posetune.spec.sweep import Resources, SweepSpec
from posetune.storage import open_storage
from posetune.storage.store_place import StorePlace
from posetune.testing.toy import Toy
from posetune.trial.energy import EnergyMeter
from posetune.trial.run import Assignment, HandOver, TrialRun


def meter(*counts: float | None, share: float = 1.0) -> EnergyMeter:
    return EnergyMeter(iter(counts).__next__, share)


def test_each_reading_has_what_was_taken_since_the_one_before() -> None:
    measured = meter(1000.0, 1500.0, 1500.0, 4500.0)
    assert [measured.take() for _ in range(3)] == [500.0, 0.0, 3000.0]


def test_a_part_of_a_device_is_a_part_of_its_counter() -> None:
    assert meter(100.0, 300.0, share=0.25).take() == 50.0


def test_a_device_without_a_counter_is_asked_once() -> None:
    measured = meter(None)
    assert [measured.take(), measured.take()] == [None, None]


def test_a_counter_that_fails_costs_nothing_but_the_figure() -> None:
    counts = iter([10.0, 25.0])
    meter = EnergyMeter(lambda: next(counts))
    assert meter.take() == 15.0
    assert meter.take() is None
    assert EnergyMeter(lambda: 1 / 0).take() is None


def test_what_a_counter_that_was_set_back_has_counted_is_not_known() -> None:
    measured = meter(9000.0, 20.0, 70.0, None)
    assert [measured.take() for _ in range(4)] == [None, 50.0, None, None]


def test_nvidia_has_no_counter_of_a_device_that_is_not_there() -> None:
    assert nvidia_energy_j(["GPU-00000000-0000-0000-0000-000000000000"]) is None


@pytest.fixture
def assignment(
    tmp_path: Path, toy_store: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Assignment]:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(MeteredDevice, "joules", 1e6)
    spec = {
        "trainable": "posetune.testing.toy:Toy",
        "objective": {"metric": "val/error_mm", "mode": "min"},
        "search": {"x": {"float": [0.01, 1]}},
        "pruner": {"max_epochs": 3},
        "resources": {"gpu": 1},
        "budget": {"trials": 1},
    }
    yield Assignment(
        sweep="s",
        trial=0,
        attempt=1,
        seed=5,
        params={"x": 0.3},
        spec=SweepSpec.model_validate(spec),
        store=StorePlace(str(toy_store), Toy.describe_store(toy_store).digest),
        storage=open_storage(tmp_path / "storage"),
        checkpoints=(),
    )
    tracemalloc.stop()  # the toy's device starts it


@pytest.mark.parametrize(("gpu", "part"), [(1.0, 1.0), (0.25, 0.25)])
def test_an_epoch_says_what_it_has_taken(assignment: Assignment, gpu: float, part: float) -> None:
    spec = assignment.spec.model_copy(update={"resources": Resources(gpu=gpu)})
    run = TrialRun(MeteredToy(), dataclasses.replace(assignment, spec=spec))
    before = MeteredDevice.joules
    said = [energy_of(Trained(run.next_epoch())) for _ in range(2)]

    taken = MeteredDevice.joules - before
    assert taken > 0
    assert said == [part * taken / 2, part * taken / 2]
    assert run.take_energy_j() == 0.0


def test_an_epoch_that_is_broken_off_has_its_part(assignment: Assignment) -> None:
    def told() -> bool:
        return MeteredDevice.joules >= 1e6 + 3 * 600.0

    run = TrialRun(MeteredToy(), assignment, told_to_stop=told)
    with pytest.raises(HandOver):
        run.next_epoch()
    message = TrialHandedOver(run.hand_over(), energy_j=run.take_energy_j())
    assert energy_of(message) == 1800.0


def test_nothing_is_said_of_a_trial_without_a_device_or_a_counter(assignment: Assignment) -> None:
    on_cpu = assignment.spec.model_copy(update={"resources": Resources()})
    for trainable, spec in ((MeteredToy(), on_cpu), (Toy(), assignment.spec)):
        run = TrialRun(trainable, dataclasses.replace(assignment, spec=spec))
        assert energy_of(Trained(run.next_epoch())) is None
    assert energy_of(TrialWaits("storage is full")) is None
