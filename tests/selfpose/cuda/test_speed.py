"""What `make bench-gpu` measures, small and on the CPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.step_speed import (
    WAYS,
    count_work,
    largest_batch,
    measure_step,
    train_shortly,
)
from torch._dynamo.utils import counters

from posetune.api import BadInputError, TrialContext, silent
from posetune.testing.stages import build_stages
from selfpose.config import SelfPoseConfig
from selfpose.trainable import SelfPose
from selfpose.training import trial
from selfpose.training.forecast import forecast_cost
from selfpose.training.trial import Trial

SMALL: dict[str, Any] = {
    "image_size": 32,
    "width": 4,
    "batch_size": 4,
    "steps_per_epoch": 1,
    "lifting": {"width": 16},
    "discriminator": {"width": 4},
    "flow": {"depth": 2, "hidden": 8, "steps": 2, "batch_size": 16},
}


@pytest.fixture
def given(tiny_store: Path, tmp_path: Path) -> Callable[..., tuple[SelfPoseConfig, TrialContext]]:
    """A small configuration, with changes, and what its trial starts from."""

    def make(**changes: Any) -> tuple[SelfPoseConfig, TrialContext]:
        config = SelfPoseConfig.model_validate({**SMALL, **changes})
        products = build_stages(SelfPose.stages(config, tiny_store), tmp_path)
        return config, TrialContext(store=tiny_store, seed=0, work=tmp_path, products=products)

    return make


@pytest.mark.slow
def test_a_step_is_measured_beside_its_twin_and_the_rate_of_matrices(given: Any) -> None:
    speed = measure_step(*given(), compile_too=False, rounds=1)

    assert min(speed.ours_s, speed.plain_s, speed.from_store_s) > 0
    assert min(speed.renderer_s, speed.copy_s) > 0
    assert 0 < speed.input_s < speed.ours_s
    assert 0 < speed.share_of_rate < 1
    assert 0 < speed.share_of_copying < 1
    assert speed.compiled_s is None
    assert speed.as_dict()["share_of_rate"] == speed.share_of_rate


def test_a_short_training_in_each_way_is_scored(given: Any) -> None:
    """On a CPU both ways are the same one."""
    config, context = given()
    ours, plain = train_shortly(config, context, seeds=[3])

    assert (ours.way, plain.way) == tuple(WAYS)
    assert ours.p_mpjpe_mm == plain.p_mpjpe_mm > ours.p_mpjpe_mirrored_mm > 0


def test_twice_the_batch_needs_twice_the_operations(given: Any) -> None:
    few, many = (count_work(*given(batch_size=n)) for n in (4, 8))

    assert many.operations == pytest.approx(2 * few.operations)
    assert few.numbers < many.numbers < 2 * few.numbers, "weights are moved once"


@pytest.mark.slow
def test_the_largest_batch_is_looked_for_in_doublings(given: Any) -> None:
    assert largest_batch(*given(), most=9) == 8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_compiled_steps_equal_eager_ones(given: Any) -> None:
    """Without any gradient the third step's terms would differ by more."""
    config, context = given(steps_per_epoch=3)
    context = replace(context, device="cuda")
    eager, compiled = Trial(config, context), Trial(config, context)
    if not compiled.compile():
        pytest.skip("torch finds no compiler")

    assert compiled.train(silent) == pytest.approx(eager.train(silent), rel=0.1, abs=2e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have a compiler")
def test_a_trial_that_cannot_be_compiled_for_its_gpu_is_refused(given: Any) -> None:
    config, context = given(compile=True)

    with pytest.raises(BadInputError, match=r"compile: true, but on .* set compile: false"):
        Trial(config, replace(context, device="cuda"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have a compiler")
def test_a_node_that_cannot_build_the_kernels_for_its_gpu_is_named_before_a_sweep(
    given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, context = given()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))

    with pytest.raises(BadInputError, match=r"replay: true, but on .* set replay: false"):
        forecast_cost(config, replace(context, device="cuda"))


@pytest.mark.long
@pytest.mark.timeout(1800)  # compiling takes minutes where much else runs
@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_compiled_for_a_cpu_a_step_equals_an_eager_one(
    given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no GPU, this is what runs of it: both passes through the compiled D.

    Compiled, Phi adds up the batch statistics of four images in another order, by which gradients
    differ by up to 1 % of the largest; the other networks, compiled alone, agree to five digits.
    """
    eager, compiled = (Trial(*given()) for _ in range(2))
    monkeypatch.setattr(trial, "finds_compiler", lambda device: True)
    with torch._functorch.config.patch(donated_buffer=True):  # put back afterwards
        assert compiled.compile()
        assert compiled.train(silent) == pytest.approx(eager.train(silent), rel=1e-3, abs=1e-4)

    for network in ("model", "judge"):
        pairs = list(
            zip(*(getattr(t, network).parameters() for t in (compiled, eager)), strict=True)
        )
        largest = max(float(usual.grad.abs().max()) for _, usual in pairs if usual.grad is not None)
        assert largest > 0
        for ours, usual in pairs:
            torch.testing.assert_close(ours.grad, usual.grad, rtol=0, atol=0.05 * largest)


@pytest.mark.long
@pytest.mark.timeout(1800)  # compiling takes minutes where much else runs
@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_the_next_trial_compiles_nothing_again(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "finds_compiler", lambda device: True)
    missed = []
    with torch._functorch.config.patch(donated_buffer=True):  # put back afterwards
        for _ in range(2):
            counters.clear()
            another = Trial(*given())
            another.compile()
            another.train(silent)
            caches = counters["aot_autograd"], counters["inductor"]
            missed.append(sum(n for cache in caches for key, n in cache.items() if "miss" in key))
            used = sum(n for cache in caches for key, n in cache.items() if "hit" in key)

    assert missed[1] == 0
    assert used > 0


def test_nothing_is_compiled_on_a_cpu(given: Any) -> None:
    assert not Trial(*given(compile=True)).compile()
