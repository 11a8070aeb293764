"""What `make bench-gpu` measures, small and on the CPU."""

from __future__ import annotations

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

from posetune.api import BadInputError, TrialContext
from posetune.testing.stages import build_stages
from selfpose.config import SelfPoseConfig
from selfpose.trainable import SelfPose
from selfpose.training.forecast import forecast_cost

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
    speed = measure_step(*given(), rounds=1)

    assert min(speed.ours_s, speed.plain_s, speed.from_store_s) > 0
    assert min(speed.renderer_s, speed.copy_s) > 0
    assert 0 < speed.input_s < speed.ours_s
    assert 0 < speed.share_of_rate < 1
    assert 0 < speed.share_of_copying < 1
    assert speed.as_dict()["share_of_rate"] == speed.share_of_rate


@pytest.mark.slow
def test_a_short_training_in_each_way_is_scored(given: Any) -> None:
    """On a CPU both ways are the same one."""
    config, context = given()
    ours, plain = train_shortly(config, context, seeds=[3])

    assert (ours.way, plain.way) == tuple(WAYS)
    assert ours.p_mpjpe_mm == plain.p_mpjpe_mm > ours.p_mpjpe_mirrored_mm > 0


@pytest.mark.slow
def test_twice_the_batch_needs_twice_the_operations(given: Any) -> None:
    few, many = (count_work(*given(batch_size=n)) for n in (4, 8))

    assert many.operations == pytest.approx(2 * few.operations)
    assert few.numbers < many.numbers < 2 * few.numbers, "weights are moved once"


@pytest.mark.slow
def test_the_largest_batch_is_looked_for_in_doublings(given: Any) -> None:
    assert largest_batch(*given(), most=9) == 8


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU's compiler")
def test_a_node_that_cannot_build_the_kernels_for_its_gpu_is_named_before_a_sweep(
    given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, context = given()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))

    with pytest.raises(BadInputError, match=r"replay: true needs GPU kernels.* set replay: false"):
        forecast_cost(config, replace(context, device="cuda"))
