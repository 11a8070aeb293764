"""The reader of bodies and the pairs it teaches, trained on a GPU and on the processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from posetune.testing.stages import build_stages
from selfpose.config import SelfPoseConfig
from selfpose.cuda import kernels
from selfpose.trainable import SelfPose
from selfpose.training.stages.inputs import StageInputs

SMALL: dict[str, Any] = {
    "image_size": 32,
    "width": 8,
    "pretrain_bodies": 3,
    "pretrain_pairs": 3,
    "pretrain_batch": 4,
    "renderer": {"side_coding": True},
    "flow": {"depth": 2, "hidden": 8, "steps": 2, "batch_size": 16},
}

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("hue", [0, 1])
def test_the_stage_of_bodies_is_the_same_on_a_gpu_and_on_the_processor(
    hue: int, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In double precision and by torch's own operations: in float32 Adam magnifies rounding."""
    monkeypatch.setattr(kernels, "run_on", lambda device: False)
    config = SelfPoseConfig.model_validate({**SMALL, "silhouette_hue": hue})
    built = {}
    for device in ("cpu", "cuda"):
        place = property(lambda inputs, device=device: torch.device(device))
        monkeypatch.setattr(StageInputs, "device", place)
        built[device] = build_stages(SelfPose.stages(config, tiny_store), tmp_path / device)
    files = sorted(file.name for file in built["cpu"]["bodies"].glob("*.safetensors"))

    assert len(files) == 3
    for file in files:
        there, here = (load_file(built[device]["bodies"] / file) for device in ("cuda", "cpu"))
        for name, tensor in here.items():
            torch.testing.assert_close(there[name], tensor, rtol=1e-4, atol=1e-5)
