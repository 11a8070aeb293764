"""A forecast measures a few steps of every part of a trial, however many there will be."""

from __future__ import annotations

from pathlib import Path

import pytest

from posetune.api import TrialContext
from selfpose.config import SelfPoseConfig
from selfpose.training.forecast import _scaled, forecast_cost


@pytest.mark.slow
def test_a_million_steps_of_each_pre_training_are_forecast_and_not_taken(
    tiny_store: Path, tmp_path: Path
) -> None:
    many = 1_000_000
    config = SelfPoseConfig.model_validate(
        {
            "image_size": 32,
            "width": 4,
            "batch_size": 4,
            "val_frames": 16,
            "pretrain_bodies": many,
            "pretrain_pairs": many,
            "pretrain_batch": 4,
            "silhouette_hue": 1,
            "lifting": {"width": 16},
            "discriminator": {"width": 4},
            "flow": {"depth": 2, "hidden": 8, "steps": many, "batch_size": 16},
        }
    )
    cost = forecast_cost(config, TrialContext(store=tiny_store, seed=0, work=tmp_path))

    assert cost.stages_s.keys() == {"baselines", "flow", "bodies"}
    # Even a step of a tenth of a millisecond makes a million of them 100 s.
    assert min(cost.stages_s["flow"], cost.stages_s["bodies"]) > 100


def test_a_moment_in_which_the_machine_did_something_else_does_not_make_steps_free() -> None:
    def measure(steps: int) -> float:
        return 0.01 + 0.001 * steps

    assert _scaled(measure, few_s=0.2, steps=100_000) == pytest.approx(100, rel=0.5)
    assert _scaled(measure, few_s=measure(1), steps=5) == pytest.approx(measure(5))
