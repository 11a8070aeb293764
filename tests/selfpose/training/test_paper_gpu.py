"""The one command for the paper's size on a GPU, run small on the CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from posetune.accelerator import CUDA
from posetune.spec.loading import configure, load_sweep
from selfpose.config import SelfPoseConfig

FACTS = {"dirty": False, "processor": "", "gpus": [], "versions": {}}
SMALLER = {
    "resources: {cpu: 4, gpu: 1}": "resources: {cpu: 1}",
    "image_size: 128": "image_size: 32",
    "width: 32": "width: 4",
    "batch_size: 96": "batch_size: 4",
    "steps_per_epoch: 500": "steps_per_epoch: 2",
    "lift_prior: 256": "lift_prior: 4",
    "pretrain_bodies: 4800": "pretrain_bodies: 2",
    "pretrain_pairs: 3200": "pretrain_pairs: 2",
    "lifting: {width: 256": "lifting: {width: 16",
    "map_px: 32": "map_px: 8",
    "discriminator: {width: 16": "discriminator: {width: 4",
    "hidden: 256, steps: 3000": "hidden: 8, steps: 5",
    "max_epochs: 24": "max_epochs: 2",
}


@pytest.fixture
def paper(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program."""
    file = repository / "tests" / "benchmarks" / "measure_paper.py"
    spec = importlib.util.spec_from_file_location("measure_paper", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "measure_paper", module)  # where dataclasses look
    spec.loader.exec_module(module)
    return module


def test_every_case_is_a_configuration(paper: ModuleType, repository: Path) -> None:
    spec, _, _ = load_sweep(repository / "search_spaces" / "selfpose" / "paper_gpu.yaml")
    cases = paper._cases(Path("mocap17.h5"))
    configs = {c.name: configure(SelfPoseConfig, spec.fixed, c.settings) for c in cases}

    assert [case.name for case in cases[:3]] == [
        "paper-procedural-model",
        "paper-plain-model",
        "paper-rooms-model",
    ]
    for name, config in configs.items():
        assert isinstance(config, SelfPoseConfig)
        assert config.silhouette_hue == (0 if "rooms" in name else 1)
        assert config.decay_steps == spec.pruner.max_epochs * config.steps_per_epoch
        assert (config.mode == "supervised") == name.endswith("twin")
        assert not (config.mode == "supervised" and config.needs_masks), "it has its truth"


@pytest.fixture
def toy(
    paper: ModuleType,
    toy_store: Path,
    toy_sweep: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Run the program with one toy of two epochs in place of its cases; its code and its JSON."""
    out = tmp_path / "out"
    monkeypatch.setenv("POSETUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(paper, "OBJECTIVE", "val/error_mm")
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "paper-toy").symlink_to(toy_store)

    def evaluate(case: Any, kept: Any, **_: Any) -> None:
        kept.put(case.name, test={"metrics": {}, "baselines": {}})

    monkeypatch.setattr(paper, "_evaluate", evaluate)

    def call(*, commit: str = "c", **settings: Any) -> tuple[int, dict[str, Any]]:
        case = paper.Case("toy", False, settings)
        monkeypatch.setattr(paper, "_cases", lambda mocap: [case])
        monkeypatch.setattr(paper, "collect", lambda: {**FACTS, "commit": commit})
        words = ["--file", str(toy_sweep(max_epochs=2)), "--stores", str(tmp_path / "stores")]
        code = paper.main([*words, "--out", str(out), "--minutes", "0"])
        return code, json.loads((out / "paper.json").read_text())[case.name]

    return call


@pytest.mark.parametrize("calls", [1, 2])
def test_a_training_whose_figures_were_lost_is_evaluated_all_the_same(
    toy: Callable[..., tuple[int, dict[str, Any]]], tmp_path: Path, calls: int
) -> None:
    for _ in range(calls):
        toy()
    (tmp_path / "out" / "paper.json").unlink()  # so ends, too, a call that ends between two writes
    code, found = toy()

    assert code == 0
    assert [epoch["epoch"] for epoch in found["epochs"]] == [1, 2]
    assert "test" in found


def test_a_failed_training_is_tried_again_with_another_commit(
    toy: Callable[..., tuple[int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, found = toy(fail_above=0.0)
    assert code == 1
    assert "diverged" in found["failed"]
    assert found["commit"] == "c"
    code, again = toy(fail_above=9.0)
    assert (code, again) == (1, found), "it is over with this commit"
    monkeypatch.setenv("POSETUNE_HOME", os.environ["POSETUNE_HOME"] + "-other")
    code, found = toy(commit="d")

    assert code == 1, "an epoch is missing"
    assert not found["failed"]
    assert found["commit"] == "d"


def test_without_a_gpu_nothing_is_drawn(
    paper: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(type(CUDA), "is_there", lambda self: False)
    folders = ["--stores", str(tmp_path / "stores"), "--out", str(tmp_path / "out")]

    assert paper.main(folders) == 2
    assert "measure_paper: resources.gpu: 1, but torch sees no GPU" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


@pytest.mark.long
def test_one_command_in_parts_trains_evaluates_and_draws_the_model_and_its_twin(
    paper: ModuleType,
    repository: Path,
    tiny_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = (repository / "search_spaces" / "selfpose" / "paper_gpu.yaml").read_text()
    for large, small in SMALLER.items():
        assert text.count(large) == 1, large
        text = text.replace(large, small)
    (tmp_path / "small.yaml").write_text(text)
    shutil.copytree(tiny_store, tmp_path / "stores" / "paper-procedural")
    monkeypatch.setenv("POSETUNE_HOME", str(tmp_path / "home"))
    out = tmp_path / "out"
    words = ["--file", str(tmp_path / "small.yaml"), "--stores", str(tmp_path / "stores")]

    def call() -> tuple[int, dict[str, Any]]:
        code = paper.main([*words, "--out", str(out), "--minutes", "0"])
        return code, json.loads((out / "paper.json").read_text())

    code, found = call()
    assert code == 1
    assert [epoch["epoch"] for epoch in found["paper-procedural-model"]["epochs"]] == [1]
    assert "test" not in found["paper-procedural-model"], "a test split is opened at the end"
    for _ in range(3):
        code, found = call()

    assert code == 0
    assert list(found) == ["paper-procedural-model", "paper-procedural-twin"]
    for name, training in found.items():
        assert [epoch["epoch"] for epoch in training["epochs"]] == [1, 2]
        assert training["test"]["metrics"]
        assert training["baselines"]
        assert training["commit"]
        assert list((out / name).glob("*.png"))
    assert (out / "curves.png").stat().st_size > 1000
