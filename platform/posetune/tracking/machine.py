"""Logs how busy the driver's machine is to the sweep's run, for MLflow's page of system metrics.

The metrics have the names that MLflow's own monitor uses. The monitor itself is not used, because
it needs further packages for what a few files of the system say.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric

from posetune.api import BadInputError
from posetune.home import Home
from posetune.study import journal
from posetune.study.database import Database
from posetune.study.view import read_sweep
from posetune.tracking.connection import connect, explain, public_address

__all__ = ["MachineSampler", "system_metrics"]

PERIOD_S = 10.0
"""Seconds between two readings."""
_GPU_S = 5.0
"""Seconds after which nvidia-smi is given up."""
_MB = 1024**2
_log = logging.getLogger(__name__)


class MachineSampler:
    """Reads how busy the machine is; the load of cores is the mean since the last reading."""

    def __init__(self, folder: Path, proc: Path = Path("/proc")) -> None:
        """Take the first reading of the cores.

        Args:
            folder: a folder on the disk whose use is read.
            proc: where Linux shows its state as files.

        Raises:
            BadInputError: the system has no such files.
        """
        self._folder, self._proc = folder, proc
        try:
            self._busy, self._total = self._ticks()
        except OSError as error:
            raise BadInputError(f"--system-metrics: needs {proc}, as Linux has it") from error

    def read(self) -> dict[str, float]:
        """Return the metrics by the names that MLflow gives them; the names have the units."""
        busy, total = self._ticks()
        share = (busy - self._busy) / max(total - self._total, 1)
        self._busy, self._total = busy, total
        lines = (self._proc / "meminfo").read_text(encoding="ascii").splitlines()
        memory = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if ":" in line}
        used = memory["MemTotal"] - memory["MemAvailable"]
        disk = shutil.disk_usage(self._folder)
        return {
            "system/cpu_utilization_percentage": 100 * share,
            "system/system_memory_usage_megabytes": used / _MB,
            "system/system_memory_usage_percentage": 100 * used / memory["MemTotal"],
            "system/disk_usage_percentage": 100 * disk.used / disk.total,
            "system/disk_available_megabytes": disk.free / _MB,
            **_gpus(),
        }

    def _ticks(self) -> tuple[int, int]:
        line = (self._proc / "stat").read_text(encoding="ascii").splitlines()[0]
        ticks = [int(word) for word in line.split()[1:9]]
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # idle, and idle for a disk


@contextmanager
def system_metrics(
    sampler: MachineSampler, database: Database, *, name: str, home: Home
) -> Iterator[None]:
    """Log the metrics of this machine to the sweep's run until the end of a block.

    Args:
        sampler: reads the metrics.
        database: the study.
        name: name of the sweep.
        home: where tracking is.
    """
    done = threading.Event()
    thread = threading.Thread(
        target=_log_until,
        args=(done, sampler, database),
        kwargs={"name": name, "home": home},
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=2.0)


def _log_until(
    done: threading.Event, sampler: MachineSampler, database: Database, *, name: str, home: Home
) -> None:
    client = connect(home)
    view = read_sweep(database, name)
    while not done.wait(PERIOD_S):
        try:
            with database.reading() as connection:
                tracked = journal.read_tracked(connection, view.id, public_address(home.tracking))
            if None in tracked:  # None is the sweep's own run, which the tracker makes
                _send(client, tracked[None], sampler.read(), started=view.started)
        except Exception as error:  # noqa: BLE001 - whatever it is, the sweep goes on
            _log.debug("system metrics failed: %s", explain(error))


def _send(client: MlflowClient, run_id: str, found: Mapping[str, float], *, started: float) -> None:
    now = time.time()
    step = int((now - started) / PERIOD_S)
    client.log_batch(run_id, [Metric(n, v, int(1000 * now), step) for n, v in found.items()])


def _gpus() -> dict[str, float]:
    """Return the load and memory of each GPU, as MLflow names them; empty if there is no GPU."""
    fields = "index,utilization.gpu,memory.used,memory.total"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_GPU_S,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    metrics = {}
    for line in ended.stdout.splitlines() if ended.returncode == 0 else []:
        try:
            index, load, used, total = (float(word) for word in line.split(","))
        except ValueError:  # nvidia-smi says [N/A] of a part of a GPU (MIG)
            continue
        metrics[f"system/gpu_{index:.0f}_utilization_percentage"] = load
        metrics[f"system/gpu_{index:.0f}_memory_usage_megabytes"] = used
        metrics[f"system/gpu_{index:.0f}_memory_usage_percentage"] = 100 * used / total
    return metrics
