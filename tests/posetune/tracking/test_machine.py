"""How busy the machine is, in the sweep's run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from support.waiting import wait_until

from posetune.api import BadInputError
from posetune.tracking import machine
from posetune.tracking.machine import MachineSampler, system_metrics
from posetune.tracking.projection import ship

MEMORY = "MemTotal:       4096 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\n"


def ticks(proc: Path, *, busy: int, idle: int) -> Path:
    proc.mkdir(exist_ok=True)
    (proc / "stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 1 1\n")
    (proc / "meminfo").write_text(MEMORY)
    return proc


def test_the_load_is_that_since_the_reading_before(tmp_path: Path) -> None:
    proc = ticks(tmp_path / "proc", busy=1000, idle=0)
    sampler = MachineSampler(tmp_path, proc)
    ticks(proc, busy=1030, idle=70)
    found = sampler.read()
    assert found["system/cpu_utilization_percentage"] == 30
    assert found["system/system_memory_usage_megabytes"] == 3
    assert found["system/system_memory_usage_percentage"] == 75
    ticks(proc, busy=1130, idle=70)
    assert sampler.read()["system/cpu_utilization_percentage"] == 100


def test_a_system_without_these_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="--system-metrics: needs"):
        MachineSampler(tmp_path, tmp_path / "none")


def test_they_arrive_in_the_sweeps_run_and_shipping_goes_on_as_before(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "PERIOD_S", 0.1)
    run = scene.open()
    with system_metrics(
        MachineSampler(scene.home.folder), scene.database, name="first", home=scene.home
    ):
        scene.run_trial(run, 5.0)
        report = ship(scene.database, "first", scene.home)
        client = MlflowClient(scene.home.tracking)
        wait_until(
            lambda: (
                "system/cpu_utilization_percentage" in client.get_run(report.run_id).data.metrics
            ),
            "the load in MLflow",
        )
    scene.run_trial(run, 3.0)
    again = ship(scene.database, "first", scene.home)
    metrics = client.get_run(again.run_id).data.metrics
    assert metrics["best/val/error_mm"] == 3.0
    assert 0 <= metrics["system/system_memory_usage_percentage"] <= 100
