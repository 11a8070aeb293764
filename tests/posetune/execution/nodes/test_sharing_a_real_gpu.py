"""Sweeps of the real model whose trials share a real GPU, as a person runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.commands import Posetune
from support.sweeps import events, view

from posetune.study.events import AttemptPlaced, ShareMeasured

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.ray,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SWEEP = """\
trainable: selfpose.trainable:SelfPose
store: {store}
objective: {{metric: val/p_mpjpe_mm, mode: min}}
search:
  learning_rate: {{float: [1.0e-4, 1.0e-3], log: true}}
fixed:
  image_size: 32
  width: 8
  batch_size: 4
  steps_per_epoch: 10
  val_frames: 16
  lifting: {{width: 16}}
  discriminator: {{width: 8}}
  flow: {{depth: 2, hidden: 16, steps: 5, batch_size: 16}}
sampler: {{name: tpe, seed: 0}}
pruner: {{name: none, max_epochs: 3}}
resources: {{cpu: 1, gpu: {gpu}, concurrent: 2}}
budget: {{trials: 4}}
"""

Sweep = Callable[[str], Path]


@pytest.fixture
def sweep(tiny_store: Path, tmp_path: Path, posetune_process: Posetune) -> Sweep:
    """Run a sweep of four small trials; return its home."""

    def run(gpu: str) -> Path:
        file = tmp_path / "sweep.yaml"
        file.write_text(SWEEP.format(store=tiny_store, gpu=gpu))
        result = posetune_process("sweep", file, "--name", "s", "--no-tracking")
        assert result.returncode == 0, result.stderr
        return tmp_path / "home"

    return run


def test_trials_share_a_gpu_by_the_memory_that_a_probe_has_measured(sweep: Sweep) -> None:
    home = sweep("1, share: true")
    found = view(home)
    assert found is not None
    assert {trial.state for trial in found.trials} == {"COMPLETE"}
    (measured,) = events(home, ShareMeasured, "s")
    total = torch.cuda.get_device_properties(0).total_memory

    assert 0 < measured.gpu <= 0.5, "so small a model leaves room for another"
    assert measured.total_bytes == pytest.approx(total, rel=0.05)
    assert 0 < measured.peak_bytes < measured.total_bytes
    assert measured.context_bytes > 0
    placed = [event.facts["gpu"] for event in events(home, AttemptPlaced, "s")]
    assert len(placed) == 4
    assert set(placed) == {measured.gpu}


def test_two_trials_train_on_one_gpu(sweep: Sweep) -> None:
    found = view(sweep("0.5"))
    assert found is not None
    assert {trial.state for trial in found.trials} == {"COMPLETE"}
    assert {trial.epochs for trial in found.trials} == {3}
    assert found.energy_j is not None, "the device counts what it takes"
    assert found.energy_j > 0
