"""Pictures a second that one core turns from JPEG files of 1000 x 1000 into crops of 128 x 128."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from posetune.provenance import collect
from selfpose.data.pictures.decoding import read_crop
from selfpose.data.pictures.photographs import PhotographJob, Photographs, PhotoOptions
from selfpose.data.synthetic.cameras import Crop

ROUNDS, PICTURES = 5, 40
SIDE, SIZE = 1000, 128


def write_pictures(folder: Path) -> list[Path]:
    """Textured pictures with a camera's noise, of 200 kB; ffmpeg's qscale 3 gives 100 to 150."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)
    wall = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).astype(float)
    files = []
    for i in range(PICTURES):
        noisy = np.clip(wall + rng.normal(0, 4, wall.shape), 0, 255).astype(np.uint8)
        files.append(folder / f"{i}.jpg")
        cv2.imwrite(str(files[-1]), noisy, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return files


def per_second(work: Callable[[], object]) -> float:
    """Pictures per second of processor time, the median of some rounds after one to warm up."""
    seconds = []
    for _ in range(ROUNDS + 1):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return PICTURES / statistics.median(seconds[1:])


def whole(file: Path, crop: Crop) -> None:
    """The plain twin: decode all, cut out, shrink."""
    picture = cv2.imread(str(file))
    u, v = (round(centre - crop.side_px / 2) for centre in crop.centre_px)
    cut = picture[v : v + round(crop.side_px), u : u + round(crop.side_px)]
    cv2.resize(cut, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def rows_of(files: list[Path], side: float) -> Photographs:
    """The same crops as an importer makes them, with a background to find the person against."""
    around = np.asarray([[0.5, 0.5], [-0.5, -0.5]]) * side / 1.35 + SIDE / 2
    joints = np.resize(around, (17, 2)).astype(np.float32)
    names = ("activity", "subject", "motion", "camera", "frame")
    return Photographs(
        names=[file.name for file in files],
        joints_2d_nj2=np.tile(joints, (len(files), 1, 1)),
        joints_3d_nj3=np.zeros((len(files), 17, 3), np.float32),
        columns={name: np.zeros(len(files), np.int32) for name in names},
        frame_size_n2=np.full((len(files), 2), SIDE, np.int32),
        root=str(files[0].parent),
        backdrop_n=np.zeros(len(files), np.int32),
        backdrops=(tuple(map(str, files[:15])),),
    )


@pytest.mark.slow
def test_pictures_a_second_and_core(tmp_path: Path, repository: Path) -> None:
    cv2.setNumThreads(1)
    files = write_pictures(tmp_path)
    measured = []
    for side in (300.0, 500.0, 700.0):
        crop = Crop((SIDE / 2, SIDE / 2), side)
        size = (SIDE, SIDE)
        job = PhotographJob(rows_of(files, side), "train", PhotoOptions(), with_masks=True)
        reduced = per_second(lambda: [read_crop(f, crop, SIZE, frame_size=size) for f in files])  # noqa: B023
        twin = per_second(lambda: [whole(file, crop) for file in files])  # noqa: B023
        measured.append((side, reduced, per_second(job), twin))
    where = collect()
    table = Table("crop, px", "reduced, per s", "with checks and mask, per s", "whole, per s")
    for values in measured:
        table.add_row(*(f"{value:.0f}" for value in values))
    kilobytes = sum(file.stat().st_size for file in files) / len(files) / 1000
    Console(width=120).print(table, f"one core of {where['processor']}, {kilobytes:.0f} kB each")
    out = repository / "runs" / "bench" / "importing.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    keys = ("crop_px", "reduced_per_s", "row_per_s", "whole_per_s")
    facts = {key: where[key] for key in ("commit", "processor", "usable_cores", "versions")}
    rows = [dict(zip(keys, values, strict=True)) for values in measured]
    out.write_text(json.dumps({"rows": rows, "kilobytes": kilobytes, **facts}, indent=1))
    assert min(reduced for _, reduced, _, _ in measured) >= 250
