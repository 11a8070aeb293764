"""Models side by side: what differs, and whether it can be told apart."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from support.simulated_driver import drive, open_unsynced
from support.simulated_driver import simulated_start as sweep_start

from posetune.api import Evaluation
from posetune.report.comparison import Compared, compare, comparison_json, comparison_tables
from posetune.study.reading import read_sweep
from posetune.study.view import SweepView

MOTIONS = np.repeat(np.arange(12), 5)
GROUPS = MOTIONS % 3


@pytest.fixture
def view(tmp_path: Path) -> SweepView:
    database = open_unsynced(tmp_path / "study.db")
    drive(database, sweep_start())
    return read_sweep(database, "s")


def column(view: SweepView, number: int, errors_n: NDArray[np.float64]) -> Compared:
    records = {"loss": errors_n, "motion": MOTIONS, "group": GROUPS}
    found = Evaluation({"val/loss": float(errors_n.mean())}, {}, records)
    return Compared(f"s/{number}", view, view.trials[number], found)


def test_a_constant_gap_is_certain_however_much_the_motions_differ(view: SweepView) -> None:
    errors_n = np.random.default_rng(0).normal(100, 30, 12)[MOTIONS]
    found = compare([column(view, 0, errors_n), column(view, 1, errors_n - 2.0)])
    assert found.differences["s/1"] == pytest.approx((-2.0, -2.0, -2.0))


def test_the_gap_is_the_macro_average_and_changes_its_sign_with_the_order(view: SweepView) -> None:
    generator = np.random.default_rng(0)
    one, two = generator.normal(100, 30, (2, len(MOTIONS)))
    there = compare([column(view, 0, one), column(view, 1, two)]).differences["s/1"]
    back = compare([column(view, 1, two), column(view, 0, one)]).differences["s/0"]
    by_group = [(two - one)[group == GROUPS].mean() for group in range(3)]
    assert there[0] == pytest.approx(np.mean(by_group))
    assert there == pytest.approx((-back[0], -back[2], -back[1]))
    assert there[1] < there[0] < there[2]


def test_other_data_is_not_paired(view: SweepView) -> None:
    errors_n = np.ones(len(MOTIONS))
    other = replace(view, store_digest="other", name="t")
    found = compare([column(view, 0, errors_n), column(other, 0, errors_n)])
    assert found.differences == {}
    assert found.data_and_code["store digest"] == ("d1", "other")


def test_on_a_narrow_terminal_no_name_of_a_metric_is_cut(view: SweepView) -> None:
    metric, interval = "val/error_2d_side_swap_px", (109.25, 100.65, 125.15)
    found = compare([Compared(f"s/{n}", view, view.trials[n]) for n in range(3)])
    out = Console(file=StringIO(), width=80)
    out.print(comparison_tables(replace(found, metrics={metric: (interval,) * 3})))
    assert metric in out.file.getvalue()  # type: ignore[attr-defined]


def test_what_is_the_same_is_left_out_and_all_of_it_is_json(view: SweepView) -> None:
    found = compare([Compared("s", view, view.best), Compared("s/0", view, view.trials[0])])
    assert found.data_and_code == {}
    same = compare([Compared("s/1", view, view.trials[1]), Compared("s/1b", view, view.trials[1])])
    assert same.settings == {}
    assert not math.isnan(found.metrics["loss"][0][0])  # type: ignore[index]
    json.dumps(comparison_json(found), allow_nan=False)
