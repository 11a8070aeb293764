"""What the page on steering says of each act, through the commands."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.simulated_driver import simulated_start
from support.steered import SWEEP_FILE, Steered

import posetune
from posetune.report.handle import Sweep
from posetune.report.pages.page import BestTrial, build_page
from posetune.study.driving.sweep import SweepRun


def said(steered: Steered, *words: object) -> str:
    """What a command prints for a person, as one line."""
    result = steered.command(*words)
    assert result.returncode == 0, result.stderr
    return " ".join((result.stdout + result.stderr).split())


def test_retry_a_new_trial_with_a_parent_and_an_edit_wait_for_the_next_driver(
    steered: Steered,
) -> None:
    text = SWEEP_FILE.format(store=steered.store, trials=6).replace("0.01, 1]", "0.01, 0.53]")
    steered.file.write_text(text)
    steered.done("trial", "stop", "curve", 1)
    started, with_the_file = "the command that started it", "posetune sweep curve.yaml --name curve"
    for words, continued_by in [
        (("trial", "retry", "curve", 1), started),
        (("trial", "extend", "curve", 0, "--epochs", 11, "--set", "x=0.25"), started),
        (("edit", "curve", "curve.yaml"), with_the_file),
    ]:
        told = said(steered, *words)
        assert f"no driver is at work; {continued_by} takes this up" in told
    assert [r.act.kind for r in steered.view().waiting_requests] == ["retry", "branch", "edit"]
    fixed = {"curve": "9,8,7,6,1,2,3,4,5"}
    search = {"x": {"float": [0.01, 0.53]}}
    sweep = steered.drive(budget={"trials": 6}, search=search, fixed=fixed)
    first = sweep.run.next_trial()
    child = sweep.run.next_trial()
    assert first is not None
    assert child is not None
    assert first.number == 1, "it goes on from its last checkpoint"
    assert first.epoch == 2
    assert (child.number, child.parent, child.params) == (2, 0, {"x": 0.25})
    assert sweep.run.spec.budget.trials == 6
    sweep.run.lease.release()
    outside = [t.number for t in steered.view().trials if t.params["x"] > 0.53]
    assert outside == [1]
    log = said(steered, "logs", "curve")
    assert "edited the sweep: " in log
    assert "search.x: " in log
    assert "trials outside of the new bounds are kept: 1" in log


def test_tags_and_notes_are_there_at_once_and_shown_everywhere(steered: Steered) -> None:
    assert "has the tag paper=figure-3" in said(steered, "tag", "curve", "paper=figure-3")
    assert "the note is written" in said(steered, "note", "curve", "too high until trial 1")
    said(steered, "tag", "curve/1", "odd")
    said(steered, "note", "curve/1", "flat")
    page = build_page(steered.view(), BestTrial(), commands=[])
    shown = said(steered, "show", "curve")
    for line in [
        "ags: paper=figure-3",
        "ote by ana@laptop: too high until trial 1",
        "rial 1: tags: odd",
        "rial 1: note by ana@laptop: flat",
    ]:
        assert line in shown, line
        assert line in page, line
    assert "is taken away" in said(steered, "tag", "curve/1", "odd", "--remove")
    assert steered.view().trials[1].tags == {}


def test_each_act_says_what_it_does_while_a_driver_is_at_work(steered: Steered) -> None:
    text = SWEEP_FILE.format(store=steered.store, trials=7)
    steered.file.write_text(text)
    with steered.driver_at_work():
        for words, done in [
            (("trial", "pin", "curve", 1), "trial 1 runs to its last epoch"),
            (("trial", "stop", "curve", 1), "trial 1 ends after its epoch"),
            (("trial", "retry", "curve", 1), "trial 1 is taken up again"),
            (("trial", "extend", "curve", 0, "--epochs", 11), "trial 0 trains up to epoch 11"),
            (("enqueue", "curve", "--set", "x=0.25"), "the next trial has x=0.25"),
            (("hold", "curve"), "its trials save and wait; posetune release curve lets them go"),
            (("release", "curve"), "sweep curve: "),
            (("edit", "curve", steered.file), "has the file "),
        ]:
            assert done in said(steered, *words), words


def test_an_extension_says_what_the_trainable_knows_of_its_rates(
    tmp_path: Path, toy_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSETUNE_TRAINABLES", "support.steered:DecayingToy")
    steered = Steered(tmp_path, toy_store, f"sqlite:///{tmp_path / 'study.db'}")
    sweep = steered.drive(trainable="support.steered:DecayingToy")
    for _ in range(2):
        sweep.train()
    sweep.run.lease.release()
    says = "the learning rate has fallen from 0.5 to 0 by then"
    told = steered.done("trial", "extend", "curve", 0, "--epochs", 11)
    assert told["notes"] == [says]
    assert "has fallen from" in said(steered, "trial", "extend", "curve", 1, "--epochs", 12)
    steered.database.close()


def test_list_finds_the_sweeps_that_somebody_started(tmp_path: Path, toy_store: Path) -> None:
    steered = Steered(tmp_path, toy_store, f"sqlite:///{tmp_path / 'study.db'}")
    for name, by in [("one", "ana@laptop"), ("two", "bob@pc"), ("three", "ana@pc")]:
        start = dataclasses.replace(simulated_start(), name=name, by=by)
        SweepRun(steered.database, start).lease.release()
    for owner, names in [
        ("ana", ["three", "one"]),
        ("ana@pc", ["three"]),
        ("bob", ["two"]),
        ("eve", []),
    ]:
        found = steered.done("list", "--owner", owner)["sweeps"]
        assert [sweep["name"] for sweep in found] == names, owner
    steered.database.close()


def test_an_edit_from_python(
    tmp_path: Path, toy_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steered = Steered(tmp_path, toy_store, f"sqlite:///{tmp_path / 'study.db'}")
    monkeypatch.setenv("POSETUNE_DATABASE", steered.address)
    steered.file.write_text(SWEEP_FILE.format(store=toy_store, trials=7))
    with steered.driver_at_work() as sweep:
        handle: Sweep = posetune.open("curve", home=tmp_path / "home")
        assert handle.edit(steered.file).event
        assert sweep.run.spec.budget.trials == 7
    steered.database.close()
