"""A sweep from Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.simulated_driver import drive, open_unsynced
from support.simulated_driver import simulated_start as sweep_start

import posetune
from posetune.api import BadInputError
from posetune.study.reading import read_sweep


def test_the_table_has_every_trial_best_first_with_its_parameters(tmp_path: Path) -> None:
    database = open_unsynced(tmp_path / "study.db")
    drive(database, sweep_start())
    view = read_sweep(database, "s")
    sweep = posetune.open("s", home=tmp_path)
    table = sweep.trials()
    assert table["trial"].to_pylist() == [t.number for t in view.ranked]
    assert {"state", "value", "seconds", "x", "depth"} <= set(table.column_names)
    assert table.to_pandas()["value"].iloc[0] == view.ranked[0].value
    reports = sweep.reports()
    assert reports.num_rows == len(view.reports)
    assert set(reports.column_names) == {"trial", "epoch", "seconds", "loss"}


def test_a_sweep_that_is_not_there_is_named(tmp_path: Path) -> None:
    open_unsynced(tmp_path / "study.db")
    with pytest.raises(BadInputError, match="no sweep 'none'"):
        posetune.open("none", home=tmp_path)


def test_importing_posetune_imports_nothing_of_it() -> None:
    code = "import sys, posetune; sys.exit(len([m for m in sys.modules if 'sqlalchemy' in m]))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
