"""How fast a model predicts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.commands import Posetune

from posetune.api import BadInputError
from posetune.report.models.speed import FEWEST_CALLS, measure_speed
from posetune.testing.toy import ToyPredictor

POSE = np.zeros((3, 3), np.float32)


class Timed(ToyPredictor):
    """Takes 0.1 s an image by a clock of its own, and 1 s more in the first call of a size."""

    def __init__(self) -> None:
        super().__init__(POSE, image_size=8)
        self.now = 0.0
        self.batches: list[int] = []

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.now += 0.1 * len(images) + (len(images) not in self.batches)
        self.batches.append(len(images))
        return super().__call__(images)


def test_speed_counts_images_and_leaves_the_first_call_out() -> None:
    model = Timed()
    one, four = measure_speed(model, (1, 4), seconds=1.0, clock=lambda: model.now)

    assert (one.batch, four.batch) == (1, 4)
    assert (one.images_per_s, four.images_per_s) == (pytest.approx(10), pytest.approx(10))
    assert (one.median_ms, four.p95_ms) == (pytest.approx(100), pytest.approx(400))
    assert one.calls in (10, 11), "of a tenth of a second each, in a second"
    assert four.calls == FEWEST_CALLS
    assert model.batches == [1] * (one.calls + 1) + [4] * (four.calls + 1)


@pytest.mark.parametrize(("batches", "seconds"), [((), 1.0), ((1, 0), 1.0), ((1,), 0.0)])
def test_what_cannot_be_measured_is_refused(batches: tuple[int, ...], seconds: float) -> None:
    with pytest.raises(BadInputError, match="must"):
        measure_speed(ToyPredictor(POSE, image_size=8), batches, seconds=seconds)


def test_the_command_names_model_machine_and_batches(posetune: Posetune, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    (tmp_path / "model").mkdir()
    save_file({"pose": POSE}, tmp_path / "model" / "model.safetensors")
    call = ("benchmark", "model", "--trainable", "posetune.testing.toy:Toy", "--seconds", 0.01)

    result = posetune(*call, "--batch", "1,7", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert Path(found["model"]).name == "model"
    assert found["image_size"] == 8
    assert found["machine"]["processor"]
    assert [(b["batch"], b["images_per_s"] > 0) for b in found["batches"]] == [(1, True), (7, True)]
    assert "images/s" in posetune(*call).stderr
    refused = posetune(*call, "--batch", "one")
    assert (refused.returncode, "--batch one: must be" in refused.stderr) == (2, True)
