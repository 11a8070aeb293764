"""What `posetune show` prints."""

from __future__ import annotations

import random
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from support.simulated_driver import SimulatedTrial, drive, open_unsynced
from support.simulated_driver import simulated_start as sweep_start

from posetune.report.sweep_json import as_json
from posetune.report.tables import sweep_tables
from posetune.study.driving.sweep import SweepRun
from posetune.study.reading import read_sweep
from posetune.study.search.rungs import Decision
from posetune.study.view import SweepView


def printed(view: SweepView, width: int) -> str:
    out = Console(file=StringIO(), width=width)
    out.print(sweep_tables(view))
    return out.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 100])
def test_a_parameter_is_named_in_whole_words_however_narrow_the_terminal(
    tmp_path: Path, width: int
) -> None:
    names = ["flow", "reprojection_2d", "consistency_3d", "deformation"]
    search = {f"loss_weights.{n}": {"float": [0.1, 10], "log": True} for n in names}
    search["depth"] = {"int": [2, 16]}
    database = open_unsynced(tmp_path / "study.db")
    defaults = {**dict.fromkeys(search, 1.0), "depth": 8}
    run = SweepRun(database, replace(sweep_start(search=search), defaults=defaults))
    for _ in range(3):
        trial = run.next_trial()
        assert trial is not None
        simulated = SimulatedTrial(run, trial.number)
        while simulated.step({"loss": 119.083 + trial.number}) == Decision.CONTINUE:
            pass
    run.lease.release()
    text = printed(read_sweep(database, "s"), width)
    head = text.split("\N{BOX DRAWINGS LIGHT HORIZONTAL}")[0]

    legend = "parameters: a flow, b reprojection_2d, c consistency_3d, d deformation, e depth"
    columns = head.replace(legend, "").split()
    words = {"flow", "reprojection", "2d", "consistency", "3d", "deformation", "depth"}
    if width == 80:
        assert legend in head
        assert [word for word in columns if len(word) == 1][-5:] == list("abcde")
        assert words & set(columns) == set()
    else:
        assert legend not in head
        assert words <= set(columns)
    assert max(map(len, text.splitlines())) <= width


def test_it_says_what_the_best_has_changed_what_was_used_and_that_once_is_once(
    tmp_path: Path,
) -> None:
    database = open_unsynced(tmp_path / "study.db")
    drive(database, sweep_start(sampler={"seed": 2}))  # the best is none of the defaults
    view = read_sweep(database, "s")
    assert view.best is not None
    text = " ".join(printed(view, 120).split())
    found = as_json(view)
    assert {n: pair["best"] for n, pair in found["changed"].items()} == {
        n: v for n, v in view.best.params.items() if v != view.trials[0].params[n]
    }
    assert f"parameter default trial {view.best.number}" in text
    assert "budget used: 14 of 14 trials" in text
    assert found["used"]["trained_s"] == sum(t.seconds for t in view.trials)
    assert "1 times" not in text


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_best_while_it_runs_is_ranked_as_in_the_end(tmp_path: Path, seed: int) -> None:
    """A trial under way stands by its value at the last rung, in both tables."""
    generator = random.Random(seed)
    database = open_unsynced(tmp_path / "study.db")
    run = SweepRun(database, sweep_start())
    running: list[SimulatedTrial] = []
    for _ in range(60):
        while len(running) < 3 and (trial := run.next_trial()) is not None:
            running.append(SimulatedTrial(run, trial.number))
        if not running:
            break
        stepping = generator.choice(running)
        if stepping.step({"loss": generator.gauss(0, 1)}) != Decision.CONTINUE:
            running.remove(stepping)
        live, read = run.best, read_sweep(database, "s").best
        assert (live and live.number) == (read and read.number)
    run.lease.release()
    again = SweepRun(database, sweep_start())
    assert again.best is not None
    assert run.best is not None
    assert again.best.number == run.best.number
    again.lease.release()
