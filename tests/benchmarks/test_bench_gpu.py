"""What `make bench-gpu` does around `support.step_speed`, small and on the CPU."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

SMALL: dict[str, Any] = {
    "image_size": 32,
    "width": 4,
    "batch_size": 4,
    "steps_per_epoch": 1,
    "lifting.width": 16,
    "discriminator.width": 4,
    "flow.hidden": 8,
}


@pytest.mark.slow
@pytest.mark.long
def test_a_table_and_a_file_come_of_a_step(repository: Path, tmp_path: Path) -> None:
    # torch's counter of operations imports Triton, which has to be told to interpret before
    # (tests/selfpose/kernels/conftest.py): not while tests are still collected.
    from support.step_speed import measure_step

    file = Path(__file__).with_name("bench_gpu.py")
    spec = importlib.util.spec_from_file_location("bench_gpu", file)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    config, context = bench.prepare(
        repository,
        tmp_path,
        file="full.yaml",
        fixed={**bench.SHORT, **SMALL},
        params={},
        device="cpu",
        images=100,
    )
    speed = measure_step(config, context, rounds=1)
    rows = {row[0]: row[1:] for row in bench.rows_of(speed, 8)}
    bench.write(tmp_path, "gpu.json", speed.as_dict())

    assert rows["training step, B 96, S 128"][0] == f"{1000 * speed.ours_s:.1f} ms"
    assert rows["the step, not replayed"][0] == "not measured"
    assert rows["largest batch"][0] == "8"
    assert all(len(row) == 4 for row in rows.values())
    written = json.loads((tmp_path / "runs" / "bench" / "gpu.json").read_text())
    assert written["ours_s"] == speed.ours_s
    assert {"device", "commit", "versions"} <= set(written)
