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
    "steps_per_epoch": 20,
    "pretrain_keypoints": 2,
    "pretrain_silhouette": 2,
    "flow.steps": 2,
    "val_frames": 96,
}
MOST = 4096

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
    ours = milliseconds(speed.ours_s)
    compiled, compiling = milliseconds(speed.compiled_s), "no compiler, or it failed"
    if speed.compiling_s is not None:
        compiling = f"{speed.compiling_s:.0f} s to compile, once a machine"
    drawn, copied = (f"{1e6 * s:.1f} us" for s in (speed.renderer_s, speed.copy_s))
    memory = f"{speed.peak_bytes / 1e9:.1f} GB"
    return [
        (
            "training step, B 96, S 128",
            ours,
            f"the plain twin, TF32 convolutions, {milliseconds(speed.plain_s)}",
            times(speed.plain_s, speed.ours_s),
            "6",
        ),
        (
            "",
            ours,
            f"the plain twin, whole float32, {milliseconds(speed.exact_s)}",
            times(speed.exact_s, speed.ours_s),
            "6",
        ),
        (
            f"its {speed.operations / 1e12:.2f} TFLOP",
            ours,
            f"bf16 matrices, {speed.matrix_rate / 1e12:.0f} TFLOP/s",
            f"{speed.share_of_rate:.0%}",
            "25%",
        ),
        ("the step, not replayed", milliseconds(speed.unrecorded_s), ours, "", ""),
        ("the step, compiled", compiled, f"{ours}; {compiling}", "", ""),
        (
            "renderer, both passes",
            drawn,
            f"a copy, {copied}",
            times(speed.renderer_s, speed.copy_s),
            "at most 3",
        ),
        (
            "images of a step, resident",
            f"{1e6 * speed.input_s:.0f} us",
            ours,
            f"{speed.input_s / speed.ours_s:.2%}",
            "under 1%",
        ),
        (
            "the step, images from the store",
            milliseconds(speed.from_store_s),
            ours,
            times(speed.from_store_s, speed.ours_s),
            "",
        ),
        ("memory, images not resident", memory, "", "", "at most 12 GB"),
        ("largest batch", f"at least {batch}" if 2 * batch > MOST else str(batch), "", "", ""),
    ]


def milliseconds(seconds: float | None) -> str:
    return "not measured" if seconds is None else f"{1000 * seconds:.1f} ms"


def times(other: float | None, ours: float) -> str:
    return "" if other is None else f"{other / ours:.2f}"


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
