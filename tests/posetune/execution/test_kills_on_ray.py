"""Sweeps killed with SIGKILL at many moments, through real Ray, end as undisturbed ones do.

One trial at a time: bit for bit the same trials, parameters, values, decisions and states.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.simulated_driver import outcome

from posetune.home import Home
from posetune.study.database import open_database
from posetune.study.view import read_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SELFPOSE_SWEEP = """\
trainable: selfpose.trainable:SelfPose
store: {store}
objective: {{metric: val/p_mpjpe_mm, mode: min}}
search:
  loss_weights.flow: {{float: [0.1, 10], log: true}}
  flow.depth: {{choice: [1, 2]}}
fixed:
  image_size: 32
  width: 4
  batch_size: 4
  steps_per_epoch: 2
  val_frames: 16
  lifting.width: 32
  flow: {{hidden: 16, steps: 20}}
  discriminator.width: 4
  pretrain_keypoints: 4
pruner: {{name: asha, max_epochs: 4, grace_epochs: 1, reduction_factor: 2}}
resources: {{cpu: {cpu}}}
budget: {{trials: 4}}
"""


def start(folder: Path, home: str, *arguments: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "POSETUNE_HOME": str(folder / home)}
    return subprocess.Popen(
        [sys.executable, "-m", "posetune.cli", "sweep", *map(str, arguments), "--name", "s"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill_after(folder: Path, file: Path, *, reports: int, pause: float) -> None:
    """Run the sweep until so many reports are committed and a moment more, then kill it all."""
    process = start(folder, "killed", file)
    database = None
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "killed" / "study.db").exists():
            try:
                database = database or open_database(
                    Home.resolve(folder / "killed").database, create=False
                )
                if sum(trial.epochs for trial in read_sweep(database, "s").trials) >= reports:
                    break
            except ValueError:  # nothing has been written yet
                pass
        time.sleep(0.05)
    time.sleep(pause)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if database is not None:
        database.close()


def compare(folder: Path, file: Path, kills: list[tuple[int, float]]) -> None:
    assert start(folder, "undisturbed", file).wait(timeout=180) == 0
    for reports, pause in kills:
        kill_after(folder, file, reports=reports, pause=pause)
    assert start(folder, "killed", file).wait(timeout=180) == 0
    found, expected = (
        outcome(open_database(Home.resolve(folder / home).database))
        for home in ("killed", "undisturbed")
    )
    assert found == expected


def test_killed_eight_times_the_toy_ends_the_same(
    toy_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    file = toy_sweep(trials=6, max_epochs=9, cpu=os.cpu_count() or 1, epoch_s=0.15)
    moments = [(0, 2.0), (1, 0.0), (1, 0.1), (3, 0.05), (6, 0.0), (9, 0.2), (10, 0.0), (12, 0.1)]
    compare(tmp_path, file, moments)


def test_killed_three_times_the_model_ends_the_same(tiny_store: Path, tmp_path: Path) -> None:
    file = tmp_path / "selfpose.yaml"
    file.write_text(SELFPOSE_SWEEP.format(store=tiny_store, cpu=os.cpu_count() or 1))
    compare(tmp_path, file, [(0, 9.0), (2, 0.3), (5, 0.0)])
