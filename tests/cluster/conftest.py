"""What the tests of clusters have in common."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.slurm_nodes import PROGRAMS, Slurm, new_slurm
from support.slurm_queue import EPOCHS, TRIALS, Queue
from support.sweeps import Script


@pytest.fixture(scope="module")
def slurm(
    required: Callable[[str, bool, str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Slurm]:
    """A Slurm of two nodes for the tests of this module."""
    is_there = os.geteuid() == 0 and all(map(shutil.which, PROGRAMS))
    required("slurm", is_there, "be root and install Slurm (Debian: slurm-wlm munge)")
    with new_slurm(2, shared=[tmp_path_factory.getbasetemp()]) as running:
        yield running


@pytest.fixture
def queue(slurm: Slurm, tmp_path: Path) -> Iterator[Queue]:
    made = Queue(slurm, tmp_path)
    yield made
    slurm.run("scancel", "--me")
    slurm.revive_all()  # a test that failed may have left one dead
    made.until_gone()


@pytest.fixture
def sweep_file(toy_sweep: Callable[..., Path]) -> Callable[[Script], Path]:
    """Write a sweep whose trials are not pruned and do what a script says, beside the script."""

    def write(script: Script) -> Path:
        file = toy_sweep(trials=TRIALS, max_epochs=EPOCHS, cpu=1, script=str(script.file))
        file.write_text(file.read_text().replace("name: asha", "name: none"))
        return file.rename(script.file.with_suffix(".yaml"))

    return write
