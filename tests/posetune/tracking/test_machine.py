"""How busy the machine is, in the sweep's run."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow import MlflowClient
from support.waiting import wait_until

from posetune.tracking import machine
from posetune.tracking.machine import MachineReader, system_metrics
from posetune.tracking.projection import ship


def test_the_metrics_have_the_names_that_mlflow_shows() -> None:
    found = MachineReader().read()
    shares = [name for name in found if name.endswith("_percentage")]
    assert {
        "system/cpu_utilization_percentage",
        "system/system_memory_usage_percentage",
        "system/disk_usage_percentage",
    } <= set(shares)
    assert all(0 <= found[name] <= 100 for name in shares)
    assert found["system/disk_available_megabytes"] > 0
    assert found["system/network_receive_megabytes"] >= 0


@pytest.mark.slow
def test_they_arrive_in_the_sweeps_run_and_shipping_goes_on_as_before(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "PERIOD_S", 0.1)
    run = scene.open()
    with system_metrics(scene.database, name="first", home=scene.home):
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
