"""The step at the paper's size on a CUDA device; its logic is tested small on the CPU.

One table and runs/bench/gpu.json, with the device's name.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.table import Table

from posetune.api import TrialContext, silent
from posetune.provenance import collect
from posetune.spec import configure, default_params, load_sweep
from posetune.testing.stages import build_stages
from selfpose.config import SelfPoseConfig
from selfpose.testing.speed import StepSpeed, largest_batch, measure_step
from selfpose.trainable import SelfPose

SHORT = {
    "steps_per_epoch": 10,
    "pretrain_keypoints": 2,
    "pretrain_silhouette": 2,
    "flow.steps": 2,
    "val_frames": 96,
}
MOST = 2048

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def given(repository: Path, tmp_path: Path) -> tuple[SelfPoseConfig, TrialContext]:
    """The paper's size, `full.yaml`, with short pre-training, on procedural images."""
    store = tmp_path / "store"
    importer = SelfPose.importers()["procedural"]
    options = importer.options(image_size=128, level="plain", limit=1000)
    importer.run(None, store, options, silent)
    file = repository / "search_spaces" / "selfpose" / "full.yaml"
    spec, trainable, _ = load_sweep(file)
    params = default_params(spec, trainable.config_model)
    config = configure(SelfPoseConfig, {**spec.fixed, **SHORT}, params)
    assert isinstance(config, SelfPoseConfig)
    products = build_stages(SelfPose.stages(config, store), tmp_path)
    return config, TrialContext(
        store=store, seed=0, work=tmp_path, products=products, device="cuda"
    )


def rows_of(speed: StepSpeed, batch: int) -> list[tuple[str, ...]]:
    """What, ours, beside what, the ratio or share, and the aim."""
    ours = f"{1000 * speed.ours_s:.1f} ms"
    plain = f"the plain twin, {1000 * speed.plain_s:.1f} ms"
    rate = f"bf16 matrices, {speed.matrix_rate / 1e12:.0f} TFLOP/s"
    compiled = replayed = "not measured: no compiler"
    if speed.compiled_s is not None:
        replayed = "failed: the reason is printed above"
        if speed.replayed_s is not None:
            replayed = f"{1000 * speed.replayed_s:.1f} ms"
        compiled = f"{1000 * speed.compiled_s:.1f} ms, compiled in {speed.compiling_s:.0f} s"
    drawn, copied = (f"{1e6 * s:.0f} us" for s in (speed.renderer_s, speed.copy_s))
    times, traffic = speed.plain_s / speed.ours_s, speed.renderer_s / speed.copy_s
    memory = f"{speed.peak_bytes / 1e9:.1f} GB"
    return [
        ("training step, B 96, S 128", ours, plain, f"{times:.1f}", "6"),
        (
            f"its {speed.operations / 1e12:.2f} TFLOP",
            ours,
            rate,
            f"{speed.share_of_rate:.0%}",
            "25%",
        ),
        ("the same step, compiled", compiled, ours, "", ""),
        ("the same, as CUDA graphs", replayed, ours, "", ""),
        ("renderer, both passes", drawn, f"a copy, {copied}", f"{traffic:.1f}", "at most 3"),
        (
            "images of a step, resident",
            f"{1e6 * speed.input_s:.0f} us",
            ours,
            f"{speed.input_s / speed.ours_s:.2%}",
            "under 1%",
        ),
        (
            "the same, from the store",
            f"{1e6 * speed.reading_s:.0f} us",
            ours,
            f"{speed.reading_s / speed.ours_s:.2%}",
            "",
        ),
        ("memory, images not resident", memory, "", "", "at most 12 GB"),
        ("largest batch", f"at least {batch}" if 2 * batch > MOST else str(batch), "", "", ""),
    ]


def test_the_papers_size(given: tuple[SelfPoseConfig, TrialContext], repository: Path) -> None:
    speed = measure_step(*given)
    batch = largest_batch(*given, most=MOST)
    device = torch.cuda.get_device_name()
    table = Table("what", "ours", "beside", "ratio", "aim", title=device)
    for row in rows_of(speed, batch):
        table.add_row(*row)
    Console(width=150).print(table)
    where = collect()
    facts = {key: where[key] for key in ("commit", "dirty", "processor", "versions")}
    out = repository / "runs" / "bench" / "gpu.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    figures = {**speed.as_dict(), "largest_batch": batch, "largest_batch_tried": MOST}
    out.write_text(json.dumps({"device": device, **figures, **facts}, indent=1))
