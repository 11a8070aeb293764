"""The step at the paper's size on a CUDA device; its logic is tested small on the CPU.

Tables of the step, of what stands below half of its own rate in it, of trials at a time and of
short trainings; in runs/bench gpu.json (gpu_parts.json while it is measured), gpu_profile.json,
gpu_together.json and gpu_training.json, with the device's name.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.table import Table
from support.step_profile import profile_kernels, profile_products
from support.step_speed import (
    WAYS,
    StepSpeed,
    largest_batch,
    measure_step,
    train_shortly,
)
from support.trials_together import measure_together

from posetune.api import TrialContext, silent
from posetune.provenance import collect
from posetune.spec.loading import configure, default_params, load_sweep
from posetune.testing.stages import build_stages
from selfpose.config import SelfPoseConfig
from selfpose.trainable import SelfPose

TRAINING = {
    "steps_per_epoch": 200,
    "pretrain_bodies": 300,
    "pretrain_pairs": 200,
    "flow.steps": 1000,
    "val_frames": 1000,
}
SHORT = {
    "steps_per_epoch": 20,
    "pretrain_keypoints": 2,
    "pretrain_silhouette": 2,
    "flow.steps": 2,
    "val_frames": 96,
}
MOST = 4096
TOGETHER: dict[str, dict[str, Any]] = {
    # what is learned before does not change how fast a step is
    "quickstart.yaml": {"pretrain_bodies": 20, "pretrain_pairs": 20, "flow.steps": 20},
    "lifting.yaml": {"flow.steps": 20},
}
ASK_FOR_MPS = """
import json, os, sys
from posetune.execution.nodes import mps
said = mps.join_mps()
reached = {name: os.environ[name] for name in (mps.PIPES, mps.LOGS) if name in os.environ}
print(json.dumps([said, reached]), flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def prepare(
    repository: Path,
    folder: Path,
    *,
    file: str,
    fixed: dict[str, Any],
    params: dict[str, Any],
    device: str = "cuda",
    images: int = 1000,
) -> tuple[SelfPoseConfig, TrialContext]:
    """A sweep file's configuration with changes, on some procedural images of 128 px a split."""
    store = folder / "store"
    importer = SelfPose.importers()["procedural"]
    options = importer.options(image_size=128, level="plain", limit=images)
    importer.run(None, store, options, silent)
    spec, trainable, _ = load_sweep(repository / "search_spaces" / "selfpose" / file)
    params = {**default_params(spec, trainable.config_model), **params}
    config = configure(SelfPoseConfig, {**spec.fixed, **fixed}, params)
    assert isinstance(config, SelfPoseConfig)
    products = build_stages(SelfPose.stages(config, store), folder)
    return config, TrialContext(store=store, seed=0, work=folder, products=products, device=device)


def rows_of(speed: StepSpeed, batch: int) -> list[tuple[str, ...]]:
    """What, ours, beside what, the ratio or share, and the aim."""
    ours = milliseconds(speed.ours_s)
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
        (
            f"their {speed.moved_bytes / 1e9:.1f} GB in and out",
            ours,
            f"a large copy, {speed.copy_rate / 1e12:.2f} TB/s",
            f"{speed.share_of_copying:.0%}",
            "",
        ),
        ("the step, not replayed", milliseconds(speed.unrecorded_s), ours, "", ""),
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


def write(repository: Path, name: str, figures: dict[str, Any]) -> None:
    """Write figures as JSON, with the device's name and what was run."""
    where = collect()
    facts = {key: where[key] for key in ("commit", "dirty", "processor", "versions")}
    out = repository / "runs" / "bench" / name
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"device": device_name(), **figures, **facts}, indent=1))


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def measure_parts(
    repository: Path, config: SelfPoseConfig, context: TrialContext, *, most: int, rounds: int = 5
) -> tuple[StepSpeed, int]:
    """Measure the step and the largest batch; each part is kept in gpu_parts.json at once."""
    batch = largest_batch(config, context, most=most)  # while nothing else takes memory
    known = {"largest_batch": batch, "largest_batch_tried": most}

    def keep(figures: dict[str, Any]) -> None:
        write(repository, "gpu_parts.json", {**known, **figures})

    keep({})
    return measure_step(config, context, rounds=rounds, keep=keep), batch


def profile(config: SelfPoseConfig, context: TrialContext) -> dict[str, Any]:
    """What a step spends its time on, as JSON values."""
    kernels = profile_kernels(config, context)
    products = [product.as_dict() for product in profile_products(config, context)]
    return {"step": asdict(kernels), "products": products}


def products_table(products: list[dict[str, Any]]) -> Table:
    """Return the products that stand below half of their own rate, what loses most first."""
    below = [product for product in products if product["is_below_half"]]
    title = f"below half of their own rate: {len(below)} of {len(products)}"
    table = Table("what", "of", "times", "us", "share", "lost in a step, us", title=title)
    for product in below:
        table.add_row(
            product["operation"],
            " ".join("x".join(map(str, shape)) for shape in product["shapes"]),
            str(product["count"]),
            f"{1e6 * product['seconds']:.1f}",
            f"{product['share']:.0%}",
            f"{1e6 * product['lost_s']:.0f}",
        )
    return table


def together(
    repository: Path,
    folder: Path,
    *,
    counts: Sequence[int] = (1, 2, 4, 8),
    device: str = "cuda",
    smaller: Mapping[str, Any] | None = None,
    images: int = 1000,
) -> list[dict[str, Any]]:
    """Measure trials at a time, with MPS where it can be had; each figure is kept at once."""
    found: list[dict[str, Any]] = []
    for file, fixed in TOGETHER.items():
        changed = {**fixed, **(smaller or {})}
        config, context = prepare(
            repository,
            folder / file,
            file=file,
            fixed=changed,
            params={},
            device=device,
            images=images,
        )
        epochs = load_sweep(repository / "search_spaces" / "selfpose" / file)[0].pruner.max_epochs
        for asks in (nullcontext(("not asked for", {})), started_mps()):
            with asks as (said, variables):
                runs = []
                if variables or said == "not asked for":
                    runs = measure_together(
                        config, context, counts=counts, epochs=epochs, environment=variables
                    )
            at_a_time = [asdict(run) for run in runs]
            found.append({"file": file, "mps": said, "trials_at_a_time": at_a_time})
            write(repository, "gpu_together.json", {"rows": found})
    return found


@contextmanager
def started_mps() -> Iterator[tuple[str, dict[str, str]]]:
    """Start MPS for a block as a worker of a sweep does; what it says, the variables to reach it.

    A process of its own asks for it and keeps it: this one has used CUDA already.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command, pipe = [sys.executable, "-c", ASK_FOR_MPS], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as child:
        assert child.stdout is not None
        yield tuple(json.loads(child.stdout.readline()))
        child.communicate()  # ends its input, and so the child


def test_the_papers_size(repository: Path, tmp_path: Path) -> None:
    config, context = prepare(repository, tmp_path, file="full.yaml", fixed=SHORT, params={})
    speed, batch = measure_parts(repository, config, context, most=MOST)
    table = Table("what", "ours", "beside", "ratio", "aim", title=device_name())
    for row in rows_of(speed, batch):
        table.add_row(*row)
    Console(width=150).print(table)
    figures = {**speed.as_dict(), "largest_batch": batch, "largest_batch_tried": MOST}
    write(repository, "gpu.json", figures)


def test_the_profile_of_the_papers_size(repository: Path, tmp_path: Path) -> None:
    config, context = prepare(repository, tmp_path, file="full.yaml", fixed=SHORT, params={})
    found = profile(config, context)
    write(repository, "gpu_profile.json", found)
    Console(width=150).print(products_table(found["products"]))


def test_trials_together(repository: Path, tmp_path: Path) -> None:
    table = Table("trials", "MPS", "at a time", "trials per hour", title=device_name())
    for row in together(repository, tmp_path):
        for run in row["trials_at_a_time"]:
            cells = (str(run["trials"]), f"{run['trials_per_hour']:.0f}")
            table.add_row(row["file"], row["mps"], *cells)
    Console(width=150).print(table)


def test_a_short_training_ends_where_the_plain_one_does(repository: Path, tmp_path: Path) -> None:
    config, context = prepare(
        repository, tmp_path, file="paper_gpu.yaml", fixed=TRAINING, params={"mode": "complete"}
    )
    found = train_shortly(config, context, seeds=range(3))
    baselines = SelfPose.baselines(context.products, "val/p_mpjpe_mm")
    title = f"P-MPJPE after {config.steps_per_epoch} steps; " + ", ".join(
        f"{name} {value:.1f}" for name, value in baselines.items()
    )
    table = Table("seed", "way", "mm", "mm, mirrors allowed", "seconds", title=title)
    for run in found:
        scores = (f"{mm:.1f}" for mm in (run.p_mpjpe_mm, run.p_mpjpe_mirrored_mm))
        table.add_row(str(run.seed), run.way, *scores, f"{run.seconds:.1f}")
    Console(width=150).print(table)
    runs = [asdict(run) for run in found]
    kept = {"baselines": dict(baselines), "runs": runs, "steps": config.steps_per_epoch}
    write(repository, "gpu_training.json", kept)
    ours, plain = ([run.p_mpjpe_mm for run in found if run.way == way] for way in WAYS)
    assert abs(statistics.mean(ours) - statistics.mean(plain)) < max(plain) - min(plain)
