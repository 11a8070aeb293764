"""The example of the README is complete: it keeps the laws, and a sweep runs on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.commands import Posetune

import posetune.testing.example
from posetune.testing.conformance import TrainableConformance
from posetune.testing.example import SPLITS, OnePose


def write_store(store: Path) -> Path:
    store.mkdir()
    generator = np.random.default_rng(0)
    for split in SPLITS:
        np.save(store / f"{split}.npy", generator.normal(1, 0.1, (50, 3, 3)).astype(np.float32))
    return store


class TestOnePose(TrainableConformance):
    trainable = OnePose

    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return write_store(tmp_path_factory.mktemp("stores") / "poses")


def test_it_is_as_short_as_the_readme_says() -> None:
    lines = Path(posetune.testing.example.__file__).read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) < 80


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_runs_on_it(posetune: Posetune, ray_head: str, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(
        f"""\
trainable: posetune.testing.example:OnePose
store: {write_store(tmp_path / "poses")}
objective: {{metric: val/error, mode: min}}
search: {{rate: {{float: [0.01, 1], log: true}}}}
pruner: {{max_epochs: 3}}
budget: {{trials: 4}}
"""
    )
    checked = posetune("check", "one.yaml", "--json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["disk_bytes"] > 0
    swept = posetune("sweep", "one.yaml", "--json", "--no-tracking", "--address", ray_head)
    assert swept.returncode == 0, swept.stderr
    assert len(json.loads(swept.stdout)["trials"]) == 4
