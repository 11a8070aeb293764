"""Hot pieces against their plain twins, side by side in one run: medians of interleaved rounds."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.table import Table
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from posetune.provenance import collect
from selfpose.procrustes import procrustes_align
from selfpose.renderer import draw_skeletons
from selfpose.skeleton import H36M_17
from selfpose.testing.plain import draw_plainly
from selfpose.trainable import SelfPose

ROUNDS = 5
PEN = {"sigma": 0.2, "profile": "distance", "brightness": (1.0,) * len(H36M_17.limbs)}


def medians(
    ours: Callable[[], object], rival: Callable[[], object], rounds: int = ROUNDS
) -> tuple[float, float]:
    """Seconds of each, taking turns, after one round that is not counted."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for work, taken in zip((ours, rival), seconds, strict=True):
            started = time.perf_counter()
            work()
            taken.append(time.perf_counter() - started)
    return statistics.median(seconds[0][1:]), statistics.median(seconds[1][1:])


def renderer(batch: int, side: int) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(0)
    joints = torch.rand((batch, 17, 2), generator=generator) * 1.6 - 0.8

    def step(draw: Callable[[Tensor], Tensor]) -> None:
        given = joints.clone().requires_grad_()
        draw(given).square().sum().backward()

    return medians(
        lambda: step(lambda j: draw_skeletons(j, H36M_17.limbs, image_size=side, **PEN)),
        lambda: step(lambda j: draw_plainly(j, H36M_17.limbs, image_size=side, **PEN)),
    )


def procrustes(poses: int, looped: int) -> tuple[float, float]:
    """Ours on all; the loop over scipy on `looped` of them, scaled up."""
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(poses, 17, 3))
    predicted = truth + 0.1 * generator.normal(size=truth.shape)

    def loop() -> None:
        for a, b in zip(predicted[:looped], truth[:looped], strict=True):
            centred = a - a.mean(0)
            rotation, scale = orthogonal_procrustes(centred, b - b.mean(0))
            centred @ rotation * scale / np.square(centred).sum() + b.mean(0)

    ours, rival = medians(lambda: procrustes_align(predicted, truth, reflection="never"), loop)
    return ours, rival * poses / looped


def rendering(folder: Path, frames: int) -> tuple[float, float]:
    """A store at 128 px, level rooms: all cores, and one process of the same code."""
    importer = SelfPose.importers()["procedural"]

    def make(workers: int | None) -> Callable[[], None]:
        def run() -> None:
            out = folder / f"{time.monotonic_ns()}"
            options = importer.options(image_size=128, level="rooms", limit=frames, workers=workers)
            importer.run(None, out, options, lambda done, total, note="": None)

        return run

    return medians(make(None), make(1), rounds=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hot_pieces_beside_their_plain_twins(tmp_path: Path, repository: Path) -> None:
    rows = [
        ("renderer, forward and backward, B 96, S 128", *renderer(96, 128), "plain autograd"),
        ("renderer, forward and backward, B 32, S 32", *renderer(32, 32), "plain autograd"),
        ("Procrustes, 100,000 poses", *procrustes(100_000, 5_000), "loop over scipy, scaled up"),
        ("rendering 3 x 2,000 images, 128 px, rooms", *rendering(tmp_path, 2000), "one process"),
    ]
    where = collect()
    table = Table("what", "ours, s", "rival, s", "ratio", "rival")
    for what, ours, rival, name in rows:
        table.add_row(what, f"{ours:.4f}", f"{rival:.4f}", f"{rival / ours:.1f}", name)
    Console(width=120).print(table, f"{where['processor']}, {where['usable_cores']} cores")
    out = repository / "runs" / "bench" / "pieces.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    keys = ("what", "ours_s", "rival_s", "rival")
    measured = [dict(zip(keys, row, strict=True)) for row in rows]
    facts = {key: where[key] for key in ("commit", "processor", "usable_cores", "versions")}
    out.write_text(json.dumps({"rows": measured, **facts}, indent=1))
    assert all(ours > 0 and rival > 0 for _, ours, rival, _ in rows)
