"""Steps replayed as a CUDA graph beside the same ones launched from Python, on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from posetune.api import TrialContext, silent
from posetune.testing.stages import build_stages
from selfpose.config import SelfPoseConfig
from selfpose.cuda import graph
from selfpose.trainable import SelfPose
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
NEVER = 10**9

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def start(tiny_store: Path, tmp_path: Path) -> Callable[..., Trial]:
    """A trial of a small configuration, with changes."""

    def make(**changes: Any) -> Trial:
        config = SelfPoseConfig.model_validate({**SMALL, **changes})
        products = build_stages(SelfPose.stages(config, tiny_store), tmp_path)
        return Trial(
            config, TrialContext(tiny_store, 0, tmp_path, products=products, device="cuda")
        )

    return make


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": "lifting"},
        {"mode": "supervised"},
        {"decay_steps": 20},
        {"lift_prior": 4},
    ],
)
def test_replayed_steps_give_bitwise_the_weights_of_launched_ones(
    changes: dict[str, Any], start: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over both phases: with noise on what D sees, and without."""
    replayed, launched = start(**changes), start(**changes)
    terms = [replayed.train(silent) for _ in range(3)]
    monkeypatch.setattr(graph, "PLAIN_STEPS", NEVER)

    assert [launched.train(silent) for _ in range(3)] == terms
    for name in replayed.networks:
        pairs = zip(*(t.networks[name].parameters() for t in (replayed, launched)), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_a_continued_training_is_recorded_anew_and_goes_on_as_if_never_left(
    start: Callable[..., Trial], tmp_path: Path
) -> None:
    trial, other = start(), start()
    trial.train(silent)
    folder = tmp_path / "saved"
    folder.mkdir()
    trial.save(folder)
    other.train(silent)  # has a recording of its own, to be dropped
    other.load(folder)

    assert other.train(silent) == trial.train(silent)
    assert other.train(silent) == trial.train(silent)
