"""What is not ours is shown as it is: no markup, no picture words, no escape reaches a terminal."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Group
from rich.table import Table
from rich.text import Text
from support.simulated_driver import SimulatedTrial, drive
from support.simulated_driver import simulated_start as opening

from posetune.cli import screen
from posetune.cli.live import SweepBoard
from posetune.cli.options import complete_sweep
from posetune.cli.screen import Screen
from posetune.home import Home
from posetune.report.tables import sweep_list, sweep_tables
from posetune.storage import Folder
from posetune.study.driving.sweep import SweepRun
from posetune.study.forecasting.forecast import Forecaster
from posetune.study.reading import list_sweeps, read_sweep
from posetune.study.tables.database import Database, open_database
from posetune.visible import visible

EVIL = "[/red] [link=x]a :skull: \x1b]0;title\x07\x1b[31mred\x9b2J \u202egnp.exe"
SHOWN = "[/red] [link=x]a :skull: ␛]0;title␇␛[31mred\ufffd2J \ufffdgnp.exe"


@pytest.fixture
def terminal() -> Screen:
    return Screen(file=io.StringIO(), force_terminal=True, width=300, color_system="truecolor")


def text_of(screen: Screen) -> str:
    file = screen.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def in_table(text: str) -> Table:
    table = Table(text, title=text)
    table.add_row(text)
    table.add_row(Text(text, "red"))
    return table


@pytest.mark.parametrize(
    "make",
    [str, in_table, lambda text: Group(Text(text), text)],
    ids=["a string", "a table", "a group"],
)
def test_whatever_is_printed_is_seen_and_does_not_act(
    terminal: Screen, make: Callable[[str], object]
) -> None:
    terminal.print(make(EVIL))
    printed = text_of(terminal)
    assert SHOWN in printed
    assert printed.count("␛]0;title") >= (1 if make is str else 2)
    for acting in ("\x1b]", "\x1b[31mred", "\x9b", "\u202e", "\x07", "\u2620"):
        assert acting not in printed


def test_output_of_others_goes_the_same_way(terminal: Screen) -> None:
    terminal.out(EVIL, highlight=False)
    with terminal.status(EVIL):
        pass
    assert "\x1b]" not in text_of(terminal)
    assert "\x1b[31m" not in text_of(terminal)
    assert SHOWN in text_of(terminal)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_shows_a_title_and_a_note_as_they_are(
    terminal: Screen, monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    shown = terminal if is_terminal else Screen(file=io.StringIO(), width=300)
    monkeypatch.setattr(screen, "console", shown)
    with screen.progress_bar("[/b] \x1b]0;t\x07") as progress:
        progress(1, 2, "[/red] \x1b[31m")
        progress(2, 2, "[/red] \x1b[31m")
    printed = text_of(shown)
    assert "[/b] ␛]0;t␇" in printed
    assert "[/red] ␛[31m" in printed
    assert "\x1b[31m[" not in printed


def test_a_sweep_over_words_in_brackets_is_shown(
    database: Database, terminal: Screen, tmp_path: Path
) -> None:
    words = {"x": {"choice": ["[/red]", EVIL]}, "depth": {"int": [2, 16], "step": 2}}
    start = opening(search=words, objective={"metric": "loss [/b]", "mode": "min"})
    start = replace(start, defaults={"x": EVIL, "depth": 8})
    run = SweepRun(database, start)
    trial = run.next_trial()
    assert trial is not None
    SimulatedTrial(run, 0).step({"loss [/b]": 1.0})
    run.fail(0, f"went wrong: {EVIL}")
    terminal.print(SweepBoard(run, Forecaster(), Folder(tmp_path)).render())
    run.lease.release()
    terminal.print(sweep_tables(read_sweep(database, "s")))
    terminal.print(sweep_list(list_sweeps(database)))
    assert "[/red] [link=x]a :skull: ␛]0;title" in text_of(terminal)
    assert "\x1b]" not in text_of(terminal)


def test_values_near_the_largest_float_are_short(
    database: Database, terminal: Screen, tmp_path: Path
) -> None:
    run = SweepRun(database, opening())
    run.next_trial()
    trial = SimulatedTrial(run, 0)
    trial.step({"loss": 1.7e308})
    terminal.print(SweepBoard(run, Forecaster(), Folder(tmp_path)).render())
    run.baselines({"mean": -1.7e308})
    run.lease.release()
    terminal.print(sweep_tables(read_sweep(database, "s")))
    terminal.print(sweep_list(list_sweeps(database)))
    assert "1.700e+308" in text_of(terminal)
    assert "0" * 30 not in text_of(terminal)


def test_an_error_shows_what_it_repeats(
    posetune: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text('"\\e]0;title\\a[/red]": 1\n')
    refused = posetune("check", file)
    assert refused.returncode == 2
    assert "␛]0;title␇[/red]: no such key" in refused.stderr
    assert "\x1b" not in refused.stderr


def test_a_usage_error_shows_what_it_repeats(
    posetune: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    refused = posetune("logs", "s", "--trial", "\x1b]0;title\x07")
    assert refused.returncode == 2
    assert "Invalid value for '--trial'" in refused.stderr
    assert "\x1b]" not in refused.stderr
    unknown = posetune("logs", "s", "--\x1b]0;title\x07")
    assert unknown.returncode == 2
    assert "\x1b]" not in unknown.stderr


@pytest.mark.slow
def test_a_page_and_its_charts_hold_no_control_characters(database: Database) -> None:
    from posetune.report.pages.page import BestTrial, build_page

    words = {"depth": {"choice": ["$x^$", "\x1b[31m<b>bold"]}, "y": {"float": [0, 1e308]}}
    start = opening(search=words)
    start = replace(start, defaults={"depth": "$x^$", "y": 1e308})
    run = SweepRun(database, start)
    for number, value in enumerate((1.0, 1.7e308, -1.7e308, 2.0, 3.0)):
        run.next_trial()
        SimulatedTrial(run, number).step({"loss": value})
        run.fail(number, "\x1b[31m<b>")
    run.baselines({"mean $x^$": 1.7e308})
    run.lease.release()
    page = build_page(read_sweep(database, "s"), BestTrial(), commands=["\x1b"])
    assert visible(page) == page
    assert "<b>bold" not in page
    assert "0" * 60 not in page


def test_completion_offers_no_name_that_would_act(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSETUNE_HOME", str(tmp_path))
    monkeypatch.delenv("POSETUNE_DATABASE", raising=False)
    database = open_database(Home.resolve().database)
    for name in ("good", "go\x1b]0;title"):
        SweepRun(database, replace(opening(), name=name)).lease.release()
    assert complete_sweep("go") == ["good"]
    database.close()


def test_visible_keeps_the_length_and_the_lines() -> None:
    assert visible("a\tb\nc") == "a\tb\nc"
    assert len(visible(EVIL)) == len(EVIL)
    assert visible("caf\udcc3 é 姿") == "caf\ufffd é 姿"


@pytest.mark.slow
def test_a_whole_sweep_is_shown_as_before(database: Database, terminal: Screen) -> None:
    drive(database, opening())
    terminal.print(sweep_tables(read_sweep(database, "s")))
    assert "COMPLETE" in text_of(terminal)
    assert "\x1b[32mCOMPLETE" in text_of(terminal)  # our own style acts
