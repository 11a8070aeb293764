"""The one command for the paper's size on a GPU, run small on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SMALLER = {
    "resources: {cpu: 4, gpu: 1}": "resources: {cpu: 1}",
    "image_size: 128": "image_size: 32",
    "width: 32": "width: 4",
    "batch_size: 96": "batch_size: 4",
    "steps_per_epoch: 500": "steps_per_epoch: 2",
    "pretrain_keypoints: 2000": "pretrain_keypoints: 2",
    "pretrain_silhouette: 500": "pretrain_silhouette: 2",
    "lifting: {": "lifting: {width: 16, ",
    "discriminator: {": "discriminator: {width: 4, ",
    "hidden: 256, steps: 3000": "hidden: 8, steps: 5",
    "max_epochs: 1000": "max_epochs: 3",
}


@pytest.mark.long
def test_one_command_trains_evaluates_and_draws_the_model_and_its_twin(
    repository: Path, tiny_store: Path, tmp_path: Path
) -> None:
    folder = repository / "search_spaces" / "selfpose"
    text = (folder / "paper_gpu.yaml").read_text()
    for large, small in SMALLER.items():
        assert text.count(large) == 1, large
        text = text.replace(large, small)
    (tmp_path / "small.yaml").write_text(text)

    result = subprocess.run(
        ["bash", str(folder / "paper_gpu.sh")],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "POSETUNE_HOME": str(tmp_path / "home"),
            "FILE": str(tmp_path / "small.yaml"),
            "STORE": str(tiny_store),
            "OUT": str(tmp_path / "out"),
            "MINUTES": "0.0",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert result.returncode == 0, result.stderr
    for mode in ("complete", "supervised"):
        trained = json.loads((tmp_path / "out" / mode / "train.json").read_text())
        assert trained["params"] == {"mode": mode}
        assert len(trained["epochs"]) == 1, "no time is left after the first"
        metrics = json.loads((tmp_path / "out" / mode / "metrics.json").read_text())
        assert metrics["split"] == "test"
        assert list((tmp_path / "out" / mode).glob("*.png"))
