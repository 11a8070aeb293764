"""Measures whether the driver keeps many slots busy: a sweep of the toy, through real Ray.

A slot is a worker process that sleeps through its epochs, so dozens of them stand on any machine.
Of the driver is measured what its process takes, of the slots how long they train; both between the
first and the last start of a trial. Processor time says what a report costs; the clock says more of
what else the machine does.
"""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from posetune.study.events import AttemptPlaced, Reported
from posetune.study.tables import journal
from posetune.study.tables.database import open_database

__all__ = ["Figures", "run_many"]

_SWEEP = """\
trainable: posetune.testing.toy:Toy
store: {store}
objective: {{metric: val/error_mm, mode: min}}
search:
  x: {{float: [0.01, 1], log: true}}
  depth: {{int: [2, 8], step: 2}}
fixed: {{epoch_s: {epoch_s}}}
sampler: {{name: tpe, seed: 0}}
pruner: {{name: asha, max_epochs: {max_epochs}, grace_epochs: {grace_epochs}}}
resources: {{cpu: {cpu}}}
budget: {{trials: {trials}}}
"""

_IMPORTS_S = 20.0
"""After so long MLflow is imported too, see `posetune.tracking.tracker`."""
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class _Sample:
    """A look at the driver's process."""

    at: float
    """Seconds since the epoch."""
    main_s: float
    """Processor time of its main thread, where Tune's loop and the study run."""
    all_s: float
    """Of all its threads."""
    resident: float
    """MB."""


@dataclass(frozen=True)
class Figures:
    """What was measured between the first and the last start of a trial."""

    seconds: float
    reports: int
    main_ms: float
    """Processor time of the driver's main thread for one report."""
    all_ms: float
    busy: float
    """Share of the time of all slots in which they train."""
    busy_once_standing: float
    """The same from the moment at which every slot has had its first trial."""
    resident: tuple[float, float]
    """Of the driver, MB, medians: early, when all that it imports is there, and in the end."""
    worker: float
    """Proportional share of memory of the median worker, MB; NaN where none stood long enough."""
    workers: int
    """Processes that Ray started to train in."""

    def __str__(self) -> str:
        return (
            f"{self.reports} reports in {self.seconds:.0f} s; driver {self.main_ms:.1f} ms a "
            f"report in its main thread, {self.all_ms:.1f} ms in all; slots busy {self.busy:.1%}, "
            f"{self.busy_once_standing:.1%} once all stood; driver {self.resident[0]:.0f} MB then "
            f"{self.resident[1]:.0f} MB; {self.workers} workers of {self.worker:.0f} MB"
        )


def _look(pid: int) -> _Sample:
    def processor_s(stat: Path) -> float:
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S

    proc = Path(f"/proc/{pid}")
    status = (proc / "status").read_text().splitlines()
    resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024
    return _Sample(
        at=time.time(),
        main_s=processor_s(proc / "task" / str(pid) / "stat"),
        all_s=processor_s(proc / "stat"),
        resident=resident,
    )


def _workers(session: int) -> set[int]:
    """Return the worker processes of a session."""
    found = set()
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(proc.name)) != session:
                continue
            title = (proc / "cmdline").read_bytes()
            if title.startswith(b"ray::") and b"Agent" not in title:
                found.add(int(proc.name))
    return found


def _share_mb(pid: int) -> float:
    """Return a process's proportional share of memory."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def run_many(
    folder: Path, *, trials: int, slots: int, epoch_s: float, grace_epochs: int = 3
) -> Figures:
    """Run the sweep and measure it; ASHA cuts after `grace_epochs`, a third of all epochs."""
    (folder / "store").mkdir(parents=True)
    (folder / "store" / "toy.json").write_text('{"image_size": 8, "seed": 0}')
    file = folder / "many.yaml"
    cpu = (os.cpu_count() or 1) / slots
    file.write_text(
        _SWEEP.format(
            store=folder / "store",
            epoch_s=epoch_s,
            cpu=cpu,
            trials=trials,
            grace_epochs=grace_epochs,
            max_epochs=3 * grace_epochs,
        )
    )
    samples: list[_Sample] = []
    workers: dict[int, float] = {}  # and their memory; NaN where it was never looked at
    with (folder / "output").open("w") as output:
        driver = subprocess.Popen(
            [sys.executable, "-m", "posetune.cli", "sweep", str(file), "--name", "many", "--json"],
            env={**os.environ, "POSETUNE_HOME": str(folder / "home")},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def watch() -> None:
        while driver.poll() is None:
            with contextlib.suppress(OSError, StopIteration):
                samples.append(_look(driver.pid))
            at_work = _workers(driver.pid)
            workers.update({pid: math.nan for pid in at_work - workers.keys()})
            if len(samples) % 10 == 0:  # the kernel walks all of a process's pages for it
                for pid in at_work:
                    with contextlib.suppress(OSError, StopIteration):
                        workers[pid] = _share_mb(pid)
            time.sleep(0.5)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    assert driver.wait() == 0, (folder / "output").read_text()[-3000:]
    watcher.join()
    return _figures(folder / "home" / "study.db", samples, workers, slots=slots)


def _figures(
    study: Path, samples: list[_Sample], workers: dict[int, float], *, slots: int
) -> Figures:
    with open_database(f"sqlite:///{study}").reading() as connection:
        found = list(journal.read_events(connection, 1))
    starts = sorted(event.at for event in found if isinstance(event, AttemptPlaced))
    reports = [(event.at, event.seconds) for event in found if isinstance(event, Reported)]
    shares = [share for share in workers.values() if not math.isnan(share)]
    first, last, standing = starts[0], starts[-1], starts[slots - 1]

    def busy(begin: float, end: float) -> float:
        """Each report says how long its epoch took until shortly before it was committed."""
        trained = math.fsum(max(0.0, min(at, end) - max(at - s, begin)) for at, s in reports)
        return trained / (slots * (end - begin))

    def at(moment: float) -> _Sample:
        return min(samples, key=lambda sample: abs(sample.at - moment))

    def resident(begin: float) -> float:
        """The median over a tenth of the time from the first to the last start."""
        end = begin + 0.1 * (last - first)
        found = [sample.resident for sample in samples if begin <= sample.at <= end]
        return statistics.median(found or [at(end).resident])  # a short sweep has few samples

    begin, end = at(first), at(last)
    count = sum(begin.at < moment <= end.at for moment, _ in reports)
    return Figures(
        seconds=last - first,
        reports=count,
        main_ms=1000 * (end.main_s - begin.main_s) / count,
        all_ms=1000 * (end.all_s - begin.all_s) / count,
        busy=busy(first, last),
        busy_once_standing=busy(standing, last),
        resident=(
            resident(max(first + 0.25 * (last - first), samples[0].at + _IMPORTS_S)),
            resident(first + 0.9 * (last - first)),
        ),
        worker=statistics.median(shares) if shares else math.nan,
        workers=len(workers),
    )
