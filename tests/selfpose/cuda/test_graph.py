"""Steps replayed as a CUDA graph beside the same ones launched from Python, on a GPU."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from posetune.api import TrialContext, TrialFailedError, silent
from posetune.study.faults import FaultKind
from posetune.testing.stages import build_stages
from posetune.trial.errors import read_error
from selfpose.config import SelfPoseConfig
from selfpose.cuda import graph
from selfpose.trainable import SelfPose
from selfpose.training.modes.complete import CompleteMode
from selfpose.training.trial import Trial

SMALL: dict[str, Any] = {
    "image_size": 32,
    "width": 8,
    "batch_size": 4,
    "steps_per_epoch": 10,
    "lifting": {"width": 16},
    "discriminator": {"width": 8, "noise": 0.2, "noise_steps": 15},
    "flow": {"depth": 2, "hidden": 16, "steps": 5, "batch_size": 16},
}
READ: dict[str, Any] = {
    "lift_prior": 4,
    "pretrain_bodies": 2,
    "pretrain_pairs": 2,
    "pretrain_batch": 4,
    "distort_images": True,
    "silhouette_hue": 1,
    "renderer": {"side_coding": True},
    "loss_weights": {"read": 1, "silhouette": 1, "symmetry": 1, "bone": 1},
}
KINDS: dict[str, dict[str, Any]] = {
    "paper": {},
    "lifting": {"mode": "lifting"},
    "supervised": {"mode": "supervised"},
    "decay": {"decay_steps": 20},
    "lift the prior": {"lift_prior": 4},
    "read": READ,
    "not in bf16": {"bf16": False},
}
NEVER = 10**9

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def start(tiny_store: Path, tmp_path: Path) -> Callable[..., Trial]:
    """A trial of a small configuration, with changes."""

    def make(gpu_share: float = 1.0, **changes: Any) -> Trial:
        config = SelfPoseConfig.model_validate({**SMALL, **changes})
        products = build_stages(SelfPose.stages(config, tiny_store), tmp_path)
        context = TrialContext(tiny_store, 0, tmp_path, products=products, device="cuda")
        return Trial(config, dataclasses.replace(context, gpu_share=gpu_share))

    return make


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_replayed_steps_give_bitwise_the_weights_of_launched_ones(
    changes: dict[str, Any], start: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over both phases: with noise on what D sees, and without."""
    replayed, launched = start(**changes), start(**changes)
    terms = [replayed.train(silent) for _ in range(3)]
    monkeypatch.setattr(graph, "PLAIN_STEPS", NEVER)

    assert [launched.train(silent) for _ in range(3)] == terms
    assert_same_weights(replayed, launched)


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_a_continued_training_is_recorded_anew_and_goes_on_as_if_never_left(
    changes: dict[str, Any], start: Callable[..., Trial], tmp_path: Path
) -> None:
    trial, other = start(**changes), start(**changes)
    trial.train(silent)
    folder = tmp_path / "saved"
    folder.mkdir()
    trial.save(folder)
    other.train(silent)  # has a recording of its own, to be dropped
    other.load(folder)

    assert other.train(silent) == trial.train(silent)
    assert other.train(silent) == trial.train(silent)
    assert_same_weights(other, trial)


@pytest.mark.parametrize("share", [1.0, 1e-9])
def test_images_are_kept_on_the_gpu_where_the_trials_share_of_it_holds_them(
    share: float, start: Callable[..., Trial]
) -> None:
    """The same batches come from the GPU and from the store."""
    trial, whole = start(gpu_share=share), start()
    mode = trial.mode
    assert isinstance(mode, CompleteMode)

    assert (mode.feed.images_nss3 is not None) == (share == 1)
    assert trial.train(silent) == whole.train(silent)


def test_a_number_that_is_none_ends_the_trial_and_the_next_one_is_as_if_alone(
    start: Callable[..., Trial],
) -> None:
    lost, alone = start(), start()
    lost.train(silent)  # recorded by now
    with torch.no_grad():
        next(lost.model.phi.parameters()).fill_(torch.nan)

    with pytest.raises(TrialFailedError, match="is nan"):
        lost.train(silent)
    assert start().train(silent) == alone.train(silent)


@pytest.mark.parametrize("step", [2, graph.PLAIN_STEPS + 1], ids=["launched", "while recorded"])
def test_a_step_that_fills_the_gpu_is_told_and_the_trial_goes_on_from_its_checkpoint(
    step: int, start: Callable[..., Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the platform tries it again: from the checkpoint, with the GPU to itself."""
    undisturbed, full = start(), start()
    folder = tmp_path / "saved"
    folder.mkdir()
    undisturbed.train(silent)
    undisturbed.save(folder)
    full.load(folder)
    take, calls = full.mode.step, itertools.count(1)

    def take_or_fill(batch: tuple[Any, ...], branches: Any) -> Any:
        terms = take(batch, branches)
        if next(calls) == step:
            torch.empty(2**50, dtype=torch.uint8, device="cuda")
        return terms

    monkeypatch.setattr(full.mode, "step", take_or_fill)
    with pytest.raises(RuntimeError) as caught:
        full.train(silent)
    assert read_error(caught.value).kind == FaultKind.MEMORY, caught.value
    again = start()
    again.load(folder)

    assert again.train(silent) == undisturbed.train(silent)
    assert_same_weights(again, undisturbed)


def assert_same_weights(trial: Trial, other: Trial) -> None:
    for name in trial.networks:
        pairs = zip(*(t.networks[name].parameters() for t in (trial, other)), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs)
