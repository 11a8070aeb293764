"""The page about a sweep: whole, by itself, and what it says is so."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.browser import Browser
from support.simulated_driver import SimulatedTrial, drive, open_unsynced
from support.simulated_driver import simulated_start as sweep_start

from posetune.report.pages.page import BestTrial, build_page
from posetune.report.pruning import pruning_balance
from posetune.study.sweep import SweepRun
from posetune.study.tables.database import Database
from posetune.study.view import SweepView, read_sweep

VOID = {"meta", "link", "img", "br"}


class Balanced(HTMLParser):
    """Checks that every element is closed, and keeps what a test asks about."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.pictures: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found[k] or "" for k in ("href", "src") if k in found]
        if tag == "img":
            self.pictures.append(found)
        if tag not in VOID:
            self.open.append(tag)

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
    assert "<script" not in page
    assert "url(" not in page
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
    page, _ = page_of(read_sweep(database, "s"))
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
def test_the_page_fits_a_phone_and_a_desk(
    database: Database, tmp_path: Path, browser: Browser
) -> None:
    """No sideways scrolling of the page itself, asked of a real browser."""
    page, _ = page_of(simulated(database))
    (tmp_path / "page.html").write_text(page)
    for width in (360, 1440):
        with browser.open((tmp_path / "page.html").as_uri(), width=width) as opened:
            opened.wait_for("posetune ...")
            assert opened.evaluate("innerWidth") == width
            assert opened.evaluate("document.documentElement.scrollWidth") <= width
