"""A trial on Ray finds its worker as new, whatever the trial before it has left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.sweeps import Driver

from posetune.report.handle import open_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

LEAKING = """\
import os, random, sys, threading
import numpy as np
from posetune.testing.toy import Toy


class Leak(Toy):
    counter = []

    def epoch(self):
        reported = dict(super().epoch())
        umask = os.umask(0)
        os.umask(umask)
        reported["train/state"] = (
            len(self.counter) + len(os.environ.get("LEAKED", "")) + umask + len(sys.path)
            + len(os.getcwd()) + (np.geterr()["divide"] == "raise")
        )
        reported["train/pid"] = os.getpid()
        return reported

    def save(self, folder):
        super().save(folder)
        self.counter.append(1)
        os.environ["LEAKED"] = "xxxxx"
        os.chdir("/")
        os.umask(0o077)
        sys.path.insert(0, "/leak")
        np.seterr(all="raise")


class Reused(Leak):
    reusable = True

    def save(self, folder):
        super().save(folder)
        self.counter.clear()


class Left(Reused):
    reusable = True

    def save(self, folder):
        super().save(folder)
        threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


@pytest.fixture
def reports(
    toy_sweep: Callable[..., Path], ray_head: str, tmp_path: Path
) -> Callable[[str], list[dict[str, Any]]]:
    """Sweep with one of the classes, one trial at a time; the first report of each trial."""
    (tmp_path / "leaking.py").write_text(LEAKING)

    def run(name: str) -> list[dict[str, Any]]:
        file = toy_sweep(trials=3, max_epochs=1, concurrent=1)
        file.write_text(file.read_text().replace("posetune.testing.toy:Toy", f"leaking:{name}"))
        command = ("sweep", file, "--name", name, "--address", ray_head, "--no-tracking")
        driver = Driver(tmp_path, *command, POSETUNE_TRAINABLES=f"leaking:{name}")
        assert driver.end() == 0, driver.output
        sweep = open_sweep(name, tmp_path / "home")
        assert [trial.state for trial in sweep.view().trials] == ["COMPLETE"] * 3
        return list(sweep.reports().to_pylist())

    return run


@pytest.mark.parametrize(("name", "processes"), [("Leak", 3), ("Reused", 1), ("Left", 3)])
def test_a_worker_is_put_back_or_replaced(
    reports: Callable[[str], list[dict[str, Any]]], name: str, processes: int
) -> None:
    found = reports(name)

    assert len({report["train/state"] for report in found}) == 1
    assert len({report["train/pid"] for report in found}) == processes
