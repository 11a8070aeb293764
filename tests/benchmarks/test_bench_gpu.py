"""What `make bench-gpu` does around `support.step_speed`, small and on the CPU."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path
from types import ModuleType
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


@pytest.fixture
def bench() -> ModuleType:
    """The module of the benchmark."""
    # torch's counter of operations imports Triton, which has to be told to interpret before
    # (tests/selfpose/cuda/kernels/conftest.py): not while tests are still collected.
    file = Path(__file__).with_name("bench_gpu.py")
    spec = importlib.util.spec_from_file_location("bench_gpu", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small(bench: ModuleType, repository: Path, tmp_path: Path) -> tuple[Any, Any]:
    """A small configuration of the paper's file, and what its trial starts from."""
    fixed = {**bench.SHORT, **SMALL}
    given = {"file": "full.yaml", "fixed": fixed, "params": {}, "device": "cpu", "images": 100}
    return bench.prepare(repository, tmp_path, **given)


@pytest.mark.slow
@pytest.mark.long
def test_a_table_and_a_file_come_of_a_step(
    bench: ModuleType, small: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    write = bench.write

    def note(repository: Path, name: str, figures: dict[str, Any]) -> None:
        written.append((name, set(figures)))
        write(repository, name, figures)

    monkeypatch.setattr(bench, "write", note)
    speed, batch = bench.measure_parts(tmp_path, *small, most=8, rounds=1)
    rows = {row[0]: row[1:] for row in bench.rows_of(speed, batch)}
    bench.write(tmp_path, "gpu.json", speed.as_dict())

    assert rows["training step, B 96, S 128"][0] == f"{1000 * speed.ours_s:.1f} ms"
    assert rows["the step, not replayed"][0] == "not measured"
    assert rows["largest batch"][0] == "8"
    assert all(len(row) == 4 for row in rows.values())
    kept = json.loads((tmp_path / "runs" / "bench" / "gpu.json").read_text())
    assert kept["ours_s"] == speed.ours_s
    assert {"device", "commit", "versions"} <= set(kept)
    parts = [names for name, names in written if name == "gpu_parts.json"]
    assert len(parts) > 4
    assert all(before < after for before, after in itertools.pairwise(parts)), "none is lost"
    assert {"peak_bytes", "largest_batch", "ours_s", "operations"} <= parts[-1]


@pytest.mark.slow
def test_the_profile_says_what_stands_below_half_of_its_own_rate(
    bench: ModuleType, small: tuple[Any, Any]
) -> None:
    found = json.loads(json.dumps(bench.profile(*small)))
    products = found["products"]

    names = {product["operation"] for product in products}
    assert {"aten.convolution", "aten.convolution_backward"} <= names
    lost = [product["lost_s"] for product in products]
    assert lost == sorted(lost, reverse=True)
    for product in products:
        assert product["operations"] > 0
        assert product["share"] == pytest.approx(product["least_s"] / product["seconds"])
        assert product["is_below_half"] == (product["share"] < 0.5)
    below = sum(product["is_below_half"] for product in products)
    assert bench.products_table(products).row_count == below
    step = found["step"]
    assert 0 < step["busy_s"] <= step["span_s"]
    assert step["busy_s"] <= step["sum_s"]
    assert any("convolution" in kernel["name"] for kernel in step["kernels"])


@pytest.mark.slow
@pytest.mark.long
def test_trials_at_a_time_are_counted_by_the_hour(
    bench: ModuleType, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = {
        "image_size": 32,
        "batch_size": 4,
        "lift_prior": 4,
        "steps_per_epoch": 1,
        "val_frames": 16,
        "flow.steps": 1,
        "flow.hidden": 8,
    }
    fewer = {"quickstart.yaml": {"pretrain_bodies": 1, "pretrain_pairs": 1}, "lifting.yaml": {}}
    monkeypatch.setattr(bench, "TOGETHER", fewer)
    monkeypatch.setattr(bench, "write", lambda *given: None)
    found = bench.together(
        repository, tmp_path, counts=(1, 2), device="cpu", smaller=tiny, images=100
    )

    assert [(row["file"], row["mps"][:8]) for row in found] == [
        (file, said) for file in fewer for said in ("not aske", "MPS is n")
    ]
    for row in found[::2]:
        assert [run["trials"] for run in row["trials_at_a_time"]] == [1, 2]
        assert all(run["trials_per_hour"] > 0 for run in row["trials_at_a_time"])
    assert not found[1]["trials_at_a_time"], "there is no MPS here"
