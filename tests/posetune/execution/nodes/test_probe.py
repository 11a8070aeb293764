"""What a node finds out for the preflight: each check fails on a planted fault, and names it."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from posetune.api import Cost
from posetune.execution.nodes import preflight, probe
from posetune.execution.nodes.probe import (
    DRIVERS,
    Expected,
    installed,
    leave_mark,
    look_around,
    look_at_store,
    try_batches,
    variants,
)
from posetune.spec.loading import default_params
from posetune.spec.registration import TRAINABLES_VARIABLE
from posetune.spec.sweep import SweepSpec
from posetune.storage import open_storage
from posetune.storage.store_place import StorePlace
from posetune.testing.toy import Toy, ToyConfig

SPEC = {
    "trainable": "posetune.testing.toy:Toy",
    "objective": {"metric": "val/error_mm", "mode": "min"},
    "search": {
        "x": {"float": [0.01, 1]},
        "depth": {"int": [2, 8], "step": 2},
        "say": {"choice": ["", "a"]},
    },
    "pruner": {"name": "none", "max_epochs": 3},
    "budget": {"trials": 4},
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for a network file system."""
    monkeypatch.setattr(probe, "SETTLE_S", 0.0)


@pytest.fixture
def expected(tmp_path: Path, toy_store: Path) -> Expected:
    """What the driver of a healthy cluster sees."""
    storage = open_storage(tmp_path / "storage")
    leave_mark(storage, ".mark", who=DRIVERS)
    spec = SweepSpec.model_validate(SPEC)
    digest = Toy.describe_store(toy_store).digest
    place = StorePlace(str(toy_store), digest)
    return Expected(spec, place, storage, ".mark", installed())


def texts(found: Any, check: str) -> list[str]:
    assert all(finding.check == check for finding in found.findings), found.findings
    return [finding.text for finding in found.findings]


def test_a_healthy_node_has_no_finding_and_leaves_its_mark(
    expected: Expected, toy_store: Path
) -> None:
    found = look_around(expected, "a")
    assert found.findings == look_at_store(expected, "a").findings == ()
    assert expected.storage.children(".mark") == ["a", DRIVERS]
    assert found.memory_bytes > 1e8
    assert found.free_bytes == pytest.approx(shutil.disk_usage(toy_store).free, rel=0.1)
    tried = try_batches(expected, "a")
    assert tried.findings == ()
    assert (tried.tried, tried.cost.checkpoint_bytes, tried.gpu_bytes) == (5, 1000, 0)
    assert tried.peak_bytes > 1e7


def test_another_version_of_a_package_is_named(
    expected: Expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "site" / "optuna-0.0.1.dist-info"
    planted.mkdir(parents=True)
    (planted / "METADATA").write_text("Metadata-Version: 2.1\nName: optuna\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(str(planted.parent))
    (line,) = texts(look_around(expected, "a"), "versions")
    assert line.startswith(f"optuna 0.0.1 (the driver has {expected.versions['optuna']}); ")
    assert "constraints.txt" in line


def test_a_storage_that_is_not_shared_is_named_and_left_as_it_is(
    expected: Expected, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (line,) = texts(
        look_around(dataclasses.replace(expected, storage=open_storage(own)), "a"), "storage"
    )
    assert line.startswith(f"{own}: what the driver has written is not there; mount")
    assert list(own.iterdir()) == []


def test_a_storage_without_space_is_named_on_a_node_and_on_the_driver(
    expected: Expected, small_disk: Path
) -> None:
    storage = open_storage(small_disk)
    leave_mark(storage, ".mark", who=DRIVERS)
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as filler:
        while True:
            filler.write(bytes(4096))
            filler.flush()
    (line,) = texts(look_around(dataclasses.replace(expected, storage=storage), "a"), "storage")
    assert line.startswith(f"{small_disk}: cannot be written (No space left on device); ")
    _, (found,) = preflight._expect(
        expected.spec, Toy, store=expected.store.address, storage=storage
    )
    assert found.check == "storage"
    assert found.text.startswith(f"{small_disk}: cannot be written (No space left on device); ")
    assert found.text.endswith("make it writable for this user")


def test_a_node_that_writes_where_the_driver_does_not_look_is_named(
    expected: Expected, tmp_path: Path
) -> None:
    own = tmp_path / "own"  # as a snapshot of the driver's folder is mounted
    shutil.copytree(tmp_path / "storage", own)
    node = preflight._Node("a", "node a", cpu=1, gpu=0, trials=1)
    look = look_around(dataclasses.replace(expected, storage=open_storage(own)), node.id)
    assert look.findings == ()
    (fault,) = preflight._read_back(expected, {node: look})
    assert str(fault) == (
        f"node a: storage: {tmp_path}/storage: the driver does not see what was written there; "
        "mount the same folder at this path"
    )


def test_another_store_and_none_are_named(expected: Expected, toy_store: Path) -> None:
    (toy_store / "toy.json").write_text('{"image_size": 9}')
    (line,) = texts(look_at_store(expected, "a"), "store")
    assert f"{toy_store}: has digest " in line
    assert f"the driver's has {expected.store.digest[:12]}; put the same store" in line
    shutil.rmtree(toy_store)
    (line,) = texts(look_at_store(expected, "b"), "store")
    assert "is no toy store" in line
    assert "mount its folder" in line


@pytest.mark.slow  # imports torch
def test_a_gpu_that_torch_does_not_see_is_named(expected: Expected) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    spec = expected.spec.model_copy(
        update={"resources": expected.spec.resources.model_copy(update={"gpu": 1})}
    )
    (line,) = texts(try_batches(dataclasses.replace(expected, spec=spec), "a"), "gpu")
    assert "torch sees no GPU on this machine" in line


class Deep(Toy):
    """A toy that is too large at its greatest depth."""

    @classmethod
    def forecast(cls, config: ToyConfig, context: Any) -> Cost:
        if config.depth == 8:
            raise MemoryError("tried to allocate 2 GB")
        return Cost(1.0, {}, 100 * config.depth, 1)


def test_a_depth_whose_batch_fails_is_named_and_the_others_are_tried(
    expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRAINABLES_VARIABLE, f"{__name__}:Deep")
    spec = expected.spec.model_copy(update={"trainable": f"{__name__}:Deep"})
    found = try_batches(dataclasses.replace(expected, spec=spec), "a")
    (line,) = texts(found, "batch")
    assert line.startswith("depth=8: out of memory (tried to allocate 2 GB); lower the batch size")
    assert (found.tried, found.cost.checkpoint_bytes) == (4, 600)


def test_every_value_that_may_change_a_shape_is_tried_once(expected: Expected) -> None:
    found = variants(expected.spec, default_params(expected.spec, ToyConfig))
    assert [params["depth"] for params in found] == [4, 2, 6, 8, 4]
    assert [params["say"] for params in found] == ["", "", "", "", "a"]
    assert {params["x"] for params in found} == {0.3}
    many = {**SPEC, "search": {"depth": {"int": [1, 1000]}}}
    found = variants(SweepSpec.model_validate(many), {"depth": 1})
    assert len(found) == probe.MOST_VARIANTS
    assert (found[0]["depth"], found[-1]["depth"]) == (1, 1000)
