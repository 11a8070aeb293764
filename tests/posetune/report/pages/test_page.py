"""The page about a sweep: whole, by itself, and what it says is so."""

from __future__ import annotations

import base64
import dataclasses
import json
import random
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from support.browser import Browser
from support.page_checks import cut_off, faint_texts, nameless_controls
from support.simulated_driver import SimulatedTrial, drive, open_unsynced
from support.simulated_driver import simulated_start as sweep_start

from posetune.api import Evaluation
from posetune.report.findings.pruning import pruning_balance
from posetune.report.pages.page import BestTrial, build_page
from posetune.report.pages.script import packed_plotly
from posetune.report.pages.watching import watch_sweep
from posetune.study.driving.sweep import SweepRun
from posetune.study.reading import read_sweep
from posetune.study.tables.database import Database
from posetune.study.view import SweepView

VOID = {"meta", "link", "img", "br"}


class Balanced(HTMLParser):
    """Checks that every element is closed, and keeps what a test asks about."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.data: list[Any] = []
        self.is_data = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found[k] or "" for k in ("href", "src") if k in found]
        if tag == "img":
            self.pictures.append(found)
        if tag not in VOID:
            self.open.append(tag)
        self.is_data = tag == "script" and found.get("type") == "application/json"

    def handle_data(self, data: str) -> None:
        if self.is_data:
            self.data.append(json.loads(data))
            self.is_data = False

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_unsynced(tmp_path / "study.db")


def simulated(database: Database, **changes: object) -> SweepView:
    drive(database, sweep_start(**{"budget": {"trials": 12}, **changes}))
    return read_sweep(database, "s")


def page_of(view: SweepView) -> tuple[str, Balanced]:
    page = build_page(view, BestTrial(0, missing="a <reason>"), commands=["posetune ..."])
    parsed = Balanced()
    parsed.feed(page)
    assert parsed.open == []
    return page, parsed


@pytest.mark.slow
def test_it_needs_nothing_else_and_every_picture_says_what_it_shows(database: Database) -> None:
    page, parsed = page_of(simulated(database))
    assert all(link.startswith(("#", "data:")) for link in parsed.links)
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    without_plotly = page.replace(packed_plotly(), "")
    assert "url(" not in without_plotly
    assert "http:" not in without_plotly.replace("http://www.w3.org", "")
    assert len(parsed.pictures) >= 7
    for picture in parsed.pictures:
        assert picture["alt"]
        svg = base64.b64decode((picture["src"] or "").partition("base64,")[2])
        ElementTree.fromstring(svg)


def test_what_a_user_wrote_is_shown_and_never_run(database: Database) -> None:
    run = SweepRun(database, sweep_start(trainable="posetune.testing.toy:Toy"))
    trial = run.next_trial()
    assert trial is not None
    run.begin_attempt(0)
    run.fail(0, "<script>alert(1)</script> & more")
    run.lease.release()
    page, parsed = page_of(read_sweep(database, "s"))
    assert "<script>alert" not in page
    assert parsed.data[-1]["trials"][0]["reason"] == "<script>alert(1)</script> & more"
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    assert "a &lt;reason&gt;" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"budget": {"trials": 1}},
        {"budget": {"trials": 3}, "pruner": {"name": "none", "max_epochs": 1}},
        {"search": {"x": {"choice": [0.5, 1.0]}, "depth": {"choice": [4, 8]}}},
        {"objective": {"metric": "loss", "mode": "max"}},
    ],
)
def test_any_sweep_has_a_page(database: Database, changes: dict[str, object]) -> None:
    page_of(simulated(database, **changes))


def test_a_sweep_without_a_report_has_a_page(database: Database) -> None:
    SweepRun(database, sweep_start()).lease.release()
    page_of(read_sweep(database, "s"))


@pytest.mark.slow
def test_the_same_sweep_gives_the_same_page(database: Database) -> None:
    view = simulated(database)
    assert page_of(view)[0] == page_of(view)[0]


def test_what_pruning_saved_is_the_epochs_that_were_not_trained(database: Database) -> None:
    view = simulated(database)
    balance = pruning_balance(view)
    missing = sum(9 - t.epochs for t in view.trials if t.state == "PRUNED")
    assert balance.saved_s == pytest.approx(missing)  # a simulated epoch takes a second
    assert balance.audits == ()
    assert "what that cost is not known" in str(balance)
    one = dataclasses.replace(balance, cut=1, paused=1)
    assert str(one) == "pruning cut 1 trial; 1 is paused and may go on"


@pytest.mark.slow
def test_an_audited_trial_that_ends_as_the_best_is_a_loss(database: Database) -> None:
    """A late bloomer: bad at the first rung, best in the end."""
    pruner = {"max_epochs": 9, "audit_share": 1.0}
    run = SweepRun(database, sweep_start(pruner=pruner, budget={"trials": 3}))
    values = [[3.0] * 8 + [2.0], [4.0] * 8 + [1.5], [5.0] * 9]
    for number, losses in enumerate(values):
        trial = run.next_trial()
        assert trial is not None
        under_way = SimulatedTrial(run, number)
        for loss in losses:
            under_way.step({"loss": loss})
    run.lease.release()
    view = read_sweep(database, "s")
    assert view.audited == {1: 1, 2: 1}
    balance = pruning_balance(view)
    assert [(a.trial, a.gain) for a in balance.audits] == [(1, 0.5), (2, -3.0)]
    assert balance.lost == 1
    assert 0.5 < balance.at_most < 1
    assert "ASHA would have cut it at epoch 1" in view.trials[1].reason
    assert "of 2 that ran on to see, 1 ended as the best" in page_of(view)[0]


@pytest.mark.slow
def test_a_page_is_renewed_when_something_happened_until_the_sweep_runs_no_more(
    database: Database,
) -> None:
    run = SweepRun(database, sweep_start())
    trial = run.next_trial()
    assert trial is not None
    under_way = SimulatedTrial(run, 0)
    happens = iter([lambda: None, under_way.step, lambda: None, under_way.step, run.lease.release])
    written: list[int] = []

    last = watch_sweep(
        lambda: read_sweep(database, "s"),
        lambda view: written.append(len(view.reports)),
        lambda: next(happens)(),
    )
    assert written == [0, 1, 2]
    assert (last.state, len(last.reports)) == ("INTERRUPTED", 2)
    page = build_page(last, BestTrial(), commands=[], refresh_s=10)
    assert '<meta http-equiv="refresh" content="10">' in page
    assert "http-equiv" not in build_page(last, BestTrial(), commands=[])


# -- in a real browser ---------------------------------------------------------------------------

SEARCH = {
    "loss_weights.flow": {"float": [0.01, 10], "log": True},
    "x": {"float": [0.01, 10], "log": True},
    "depth": {"int": [2, 16], "step": 2},
    "method": {"choice": ["affine", "spline & co"]},
}


@pytest.fixture(scope="session")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepView]:
    """The page of a sweep of a hundred trials, and the sweep."""
    folder = tmp_path_factory.mktemp("hundred")
    database = open_unsynced(folder / "study.db")
    start = sweep_start(budget={"trials": 100}, search=SEARCH)
    defaults = {"loss_weights.flow": 1.0, "x": 1.0, "depth": 8, "method": "affine"}
    drive(database, dataclasses.replace(start, defaults=defaults), order=random.Random(1))
    view = read_sweep(database, "s")
    best = BestTrial(0, evaluation_with_activities())
    (folder / "page.html").write_text(build_page(view, best, commands=["posetune ..."]))
    return folder / "page.html", view


def evaluation_with_activities() -> Evaluation:
    """The tables of an evaluation with names as long as those of the real model."""
    names = ("val/p_mpjpe_side_swap_mm", "val/error_2d_side_swap_px", "val/loss")
    activities = ("WalkTogether", "SittingDown", "Directions")
    averages = {name: {"mean": 109.2, "low": 100.6, "high": 125.1} for name in activities}
    counts = {name: {"frames": 1027, "motions": 126} for name in activities}
    return Evaluation(
        metrics=dict.fromkeys(names, 99.18),
        baselines={},
        records={},
        intervals=dict.fromkeys(names, (94.86, 103.6)),
        details={"averages": {"loss": {"activities": averages}}, "activities": counts},
    )


DRAWN = "document.documentElement.dataset.charts !== undefined"
CUT_TABLES = """
[...document.querySelectorAll(".scroll")].filter(box => box.scrollWidth > box.clientWidth)
  .map(box => box.textContent.slice(0, 80))
"""
CUT_TITLES = """
[...document.querySelectorAll(".xtitle, .ytitle")].filter(title => {
  const chart = title.closest(".plot").getBoundingClientRect(), box = title.getBoundingClientRect();
  return box.left < chart.left - 1 || box.right > chart.right + 1;
}).map(title => title.textContent)
"""
SELECTED_ROWS = "[...document.querySelectorAll('tr.selected')].map(row => +row.dataset.trial)"
SELECTED_POINTS = """
[...document.querySelectorAll(".plot")].map(plot => plot.data)
  .filter(traces => traces.at(-1).name === "selected")
  .map(traces => traces.at(-1).x.filter(x => x !== null).length)
"""
PLACE = """
(() => {
  const plot = document.querySelector("#learning-curves .plot");
  plot.scrollIntoView({ block: "center" });
  const { xaxis, yaxis } = plot._fullLayout, box = plot.getBoundingClientRect();
  return [box.x + xaxis._offset + xaxis.d2p(%s), box.y + yaxis._offset + yaxis.d2p(%s)];
})()
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_can_be_read_at_every_width(
    hundred: tuple[Path, SweepView], browser: Browser, dark: bool
) -> None:
    columns = {}
    for width in (360, 768, 1440):
        with browser.open(hundred[0].as_uri(), width=width, dark=dark) as opened:
            opened.wait_until(DRAWN)
            assert opened.evaluate("innerWidth") == width
            assert opened.evaluate("document.documentElement.scrollWidth") <= width
            assert cut_off(opened) == []
            assert opened.evaluate(CUT_TITLES) == []
            assert faint_texts(opened) == []
            assert nameless_controls(opened) == []
            tracks = "getComputedStyle(document.querySelector('#parameters .grid:last-child'))"
            found = opened.evaluate(f"{tracks}.gridTemplateColumns")
            columns[width] = len(found.split())
            if width == 1440:
                assert opened.evaluate(CUT_TABLES) == []
    assert columns[360] == 1
    assert 2 <= columns[1440] <= 3


@pytest.mark.long
@pytest.mark.slow
def test_a_click_a_key_and_the_table_select_a_trial_everywhere(
    hundred: tuple[Path, SweepView], browser: Browser
) -> None:
    file, view = hundred
    assert file.stat().st_size < 3_000_000
    worst = view.ranked[-1]  # it stands alone, where the good ones lie on top of each other
    assert worst.chosen is not None
    with browser.open(file.as_uri()) as opened:
        opened.wait_until(DRAWN)
        charts = opened.evaluate("document.documentElement.dataset.charts")
        assert int(charts) == len(opened.evaluate("[...document.querySelectorAll('.chart')]"))
        assert opened.evaluate(SELECTED_ROWS) == []
        assert set(opened.evaluate(SELECTED_POINTS)) == {0}

        x, y = opened.evaluate(PLACE % (worst.chosen.epoch, worst.chosen.value))
        opened.move_to(x - 3, y)
        opened.move_to(x, y)
        said = "(document.querySelector('#learning-curves .hoverlayer') || {}).textContent || ''"
        opened.wait_until(f"({said}).includes('trial {worst.number}: pruned')")
        for name in SEARCH:
            assert name in opened.evaluate(said)
        assert f"{worst.chosen.value:.4g} at epoch" in opened.evaluate(said)
        opened.click(x, y)
        opened.wait_until("!document.getElementById('selected').hidden")
        assert opened.evaluate(SELECTED_ROWS) == [worst.number]
        assert opened.evaluate(SELECTED_POINTS)[0] >= 1

        opened.press("Escape")
        assert opened.evaluate("document.getElementById('selected').hidden")
        opened.evaluate("document.querySelectorAll('tr[data-trial] button')[3].focus()")
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        opened.press("Enter")
        assert opened.evaluate(outline) == "solid"
        fourth = view.ranked[3].number
        assert opened.evaluate(SELECTED_ROWS) == [fourth]
        curves, _, *others = opened.evaluate(SELECTED_POINTS)  # it may never have been the best
        assert curves >= view.trials[fourth].epochs
        assert len(others) >= 1 + len(SEARCH)  # the lines across all parameters, the slices
        assert min(others) >= 1
        opened.press("Tab")
        named = opened.evaluate("document.activeElement.getAttribute('aria-label')")
        assert named == f"Trial {view.ranked[4].number}"


@pytest.mark.slow
def test_columns_sort_and_without_scripts_the_pictures_stand(
    database: Database, tmp_path: Path, browser: Browser
) -> None:
    view = simulated(database)
    file = tmp_path / "page.html"
    file.write_text(page_of(view)[0])
    shown = "[...document.querySelectorAll('.chart img')].every(image => image.clientWidth > 200)"
    with browser.open(file.as_uri(), width=360, scripts=False) as opened:
        opened.wait_for("posetune ...")
        opened.wait_until(shown)
        assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    with browser.open(file.as_uri()) as opened:
        opened.wait_until("document.querySelector('#trials th button') !== null")
        opened.evaluate("document.querySelector('#trials th button').click()")
        rows = "[...document.querySelectorAll('tr[data-trial]')].map(row => +row.dataset.trial)"
        assert opened.evaluate(rows) == sorted(trial.number for trial in view.trials)
        opened.evaluate("document.querySelector('#trials th button').click()")
        assert opened.evaluate(rows) == sorted((t.number for t in view.trials), reverse=True)
