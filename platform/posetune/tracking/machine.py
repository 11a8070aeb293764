"""Logs how busy the driver's machine is to the sweep's run, for MLflow's page of system metrics.

MLflow's own monitors read the machine (through psutil, and NVML or ROCm), so that the metrics have
MLflow's names and meanings. Sending them is our own, because `mlflow.system_metrics`'s
`SystemMetricsMonitor` of MLflow 3.17 cannot keep what a sweep promises:

- It wants the id of the run when it is made. A sweep begins while MLflow is away, and the tracker
  makes the run later.
- Its thread ends for good at the first request that fails, so that an MLflow that restarts would
  end the metrics of a sweep of days.
- Its `finish` waits for the thread and for a last request without a limit, so that an MLflow that
  hangs would keep the driver from ending.

Readings that are taken while MLflow is away are lost, unlike the results of trials: nobody chooses
a model by them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

from posetune.home import Home
from posetune.study.tables import journal
from posetune.study.tables.database import Database
from posetune.tracking.server.connection import connect, explain, public_address

__all__ = ["MachineReader", "system_metrics"]

PERIOD_S = 10.0
"""Seconds between two readings."""

_MONITORS: tuple[Any, ...] = (CPUMonitor, DiskMonitor, NetworkMonitor)
"""MLflow's classes for what every machine has; `Any`, because MLflow gives them no types."""

_GPU_MONITORS: tuple[Any, ...] = (GPUMonitor, ROCMMonitor)
"""MLflow's classes for GPUs, in the order in which MLflow tries them."""

_log = logging.getLogger(__name__)


class MachineReader:
    """Reads how busy the machine is, with MLflow's monitors; use one from a single thread.

    The load of the cores is the mean since the reading before, which psutil keeps by thread.
    """

    def __init__(self) -> None:
        """Take a first reading, which the load of the cores is then measured from."""
        self._monitors = [*(make() for make in _MONITORS), *_gpu_monitors()]
        self.read()

    def read(self) -> dict[str, float]:
        """Return the metrics by the names that MLflow gives them; the names have the units."""
        found: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.clear_metrics()
            monitor.collect_metrics()
            found |= monitor.aggregate_metrics()
        return {f"system/{name}": value for name, value in found.items()}


@contextmanager
def system_metrics(database: Database, *, name: str, home: Home) -> Iterator[None]:
    """Log the metrics of this machine to the sweep's run until the end of a block.

    Args:
        database: the study.
        name: name of the sweep.
        home: where tracking is.
    """
    done = threading.Event()
    thread = threading.Thread(
        target=_log_until,
        args=(done, database),
        kwargs={"name": name, "home": home},
        name="machine metrics",
        daemon=True,  # so that the process can end while MLflow hangs
    )
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=2.0)


def _log_until(done: threading.Event, database: Database, *, name: str, home: Home) -> None:
    reader: MachineReader | None = None
    client: MlflowClient | None = None
    while not done.wait(PERIOD_S):
        try:
            # Both are made here, within the loop: a monitor may find nothing to read, and a
            # database that is away refuses to make a client.
            reader = reader or MachineReader()
            client = client or connect(home)
            _send(client, reader.read(), database, name=name, home=home)
        except Exception as error:  # noqa: BLE001 - whatever it is, the sweep goes on
            _log.debug("system metrics failed: %s", explain(error))


def _send(
    client: MlflowClient, found: dict[str, float], database: Database, *, name: str, home: Home
) -> None:
    """Log a reading, if the tracker has made the sweep's run by now."""
    with database.reading() as connection:
        sweep = journal.find_sweep(connection, name)
        if sweep is None:
            return
        tracked = journal.read_tracked(connection, sweep["id"], public_address(home.tracking))
    if None in tracked:  # None stands for the sweep's own run
        now = time.time()
        step = int((now - sweep["at"]) / PERIOD_S)
        metrics = [Metric(key, value, int(1000 * now), step) for key, value in found.items()]
        client.log_batch(tracked[None], metrics)


def _gpu_monitors() -> list[Any]:
    """Return the monitor of this machine's GPUs; none where there are none."""
    for monitor in _GPU_MONITORS:
        try:
            return [monitor()]
        except Exception as error:  # noqa: BLE001 - NVIDIA's and AMD's libraries have their own
            _log.debug("%s finds no GPU: %s", monitor.__name__, error)
    return []
