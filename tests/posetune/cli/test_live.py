"""What a sweep prints while it runs."""

from __future__ import annotations

import random
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from support.simulated_driver import SimulatedTrial, open_unsynced, simulated_start

from posetune.cli.live import SweepBoard
from posetune.cli.screen import LINE_EVERY_S
from posetune.storage import Folder
from posetune.study.driving.sweep import SweepRun
from posetune.study.forecasting.forecast import Forecaster
from posetune.study.search.rungs import Decision
from posetune.trial.checkpoints import log_file


def start(run: SweepRun) -> SimulatedTrial:
    trial = run.next_trial()
    assert trial is not None
    return SimulatedTrial(run, trial.number)


def test_lines_are_news_and_one_a_minute(tmp_path: Path) -> None:
    run = SweepRun(open_unsynced(tmp_path / "study.db"), simulated_start())
    board = SweepBoard(run, Forecaster(), Folder(tmp_path))
    began = board.started
    first, second = start(run), start(run)

    assert board.news(began + 1) == []
    first.step({"loss": 2.0})
    (leads,) = board.news(began + 2)
    assert "best so far 2.00 (trial 0 at epoch 1)" in leads
    first.step({"loss": 1.9})
    assert board.news(began + 3) == [], "the same trial leads"
    second.step({"loss": 1.0})
    (leads,) = board.news(began + 4)
    assert "best so far 1.00 (trial 1 at epoch 1)" in leads

    assert board.news(began + 4 + 0.9 * LINE_EVERY_S) == []
    assert len(board.news(began + 4 + LINE_EVERY_S)) == 1
    assert board.news(began + 5 + LINE_EVERY_S) == []

    while second.step({"loss": 0.9}) == Decision.CONTINUE:
        pass
    ended, summary = board.news(began + 6 + LINE_EVERY_S)
    assert ended.startswith("trial 1 COMPLETE at epoch 9/9: 0.90  x=")
    assert "1 of 14 trials ended" in summary
    assert summary.endswith("elapsed, time left not known yet")
    run.lease.release()


def test_a_trial_that_builds_a_stage_says_how_far_it_is(tmp_path: Path) -> None:
    run = SweepRun(open_unsynced(tmp_path / "study.db"), simulated_start())
    storage = Folder(tmp_path / "storage")
    board = SweepBoard(run, Forecaster(), storage)
    trial = start(run)
    log = storage.log(log_file(run.name, 0)).file
    log.write_text("a line of somebody else\nstage bodies error 0.0512 (600 of 2000)\nstage bod")

    board.look_at_stages()
    told, summary = board.news(board.started + LINE_EVERY_S)
    assert told == "trial 0: stage bodies error 0.0512 (600 of 2000)"
    assert "0 of 14 trials ended" in summary

    trial.step({"loss": 2.0})
    board.look_at_stages()
    assert len(board.news(board.started + 3 * LINE_EVERY_S)) == 1, "it trains now"
    run.lease.release()


def test_a_sweep_that_goes_on_does_not_repeat_what_was_said(tmp_path: Path) -> None:
    database = open_unsynced(tmp_path / "study.db")
    run = SweepRun(database, simulated_start())
    trial = start(run)
    while trial.step({"loss": 1.0}) == Decision.CONTINUE:
        pass
    run.lease.release()
    again = SweepRun(database, simulated_start())

    board = SweepBoard(again, Forecaster(), Folder(tmp_path))
    assert board.news(board.started + 1) == []
    again.lease.release()


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_so_far_never_goes_back(tmp_path: Path, mode: str) -> None:
    opening = simulated_start(objective={"metric": "loss", "mode": mode})
    run = SweepRun(open_unsynced(tmp_path / "study.db"), opening)
    board, generator = SweepBoard(run, Forecaster(), Folder(tmp_path)), random.Random(0)
    running = [start(run) for _ in range(3)]
    said = []
    while running:
        trial = generator.choice(running)
        if trial.step({"loss": generator.gauss(0, 1)}) != Decision.CONTINUE:
            running.remove(trial)
        said.append(float(board.summary().partition("best so far ")[2].split()[0]))
    run.lease.release()

    assert said == sorted(said, reverse=mode == "min")
    assert len(set(said)) > 1


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_breaks_no_name(tmp_path: Path, width: int) -> None:
    names = ["discriminator.learning_rate_ratio", "lifting.learning_rate_ratio"]
    search = {name: {"float": [0.1, 10], "log": True} for name in names}
    search["depth"] = {"int": [2, 16]}
    defaults = {**dict.fromkeys(names, 1.0), "depth": 8}
    sweep_start = replace(simulated_start(search=search), defaults=defaults)
    run = SweepRun(open_unsynced(tmp_path / "study.db"), sweep_start)
    start(run).step({"loss": 2.0})
    out = Console(file=StringIO(), width=width)
    out.print(SweepBoard(run, Forecaster(), Folder(tmp_path)).render())
    run.lease.release()
    text = out.file.getvalue()  # type: ignore[attr-defined]

    assert [name for name in names if f"{name}=1" not in text] == []
    assert max(map(len, text.splitlines())) <= width
