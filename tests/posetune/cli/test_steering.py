"""Every act through the command line, beside a driver at work and on a resting sweep."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.curve_sweep import CurveSweep
from support.steered import SWEEP_FILE, Steered

import posetune
from posetune.api import BadInputError
from posetune.home import Home
from posetune.study.acts import asking
from posetune.study.acts.act import ExtendTrial
from posetune.study.tables.database import open_database


@pytest.mark.slow
def test_every_act_on_a_running_sweep(steered: Steered) -> None:
    with steered.driver_at_work() as sweep:
        run = sweep.run
        assert steered.done("trial", "pin", "curve", 1)["by"] == "ana@laptop"
        assert run.trials[1].is_pinned
        assert steered.done("trial", "stop", "curve", 1)["event"]
        assert run.trials[1].state == "STOPPED"
        assert steered.done("trial", "retry", "curve", 1)["waits"] is False
        assert run.trials[1].state is None
        steered.done("trial", "extend", "curve", 0, "--epochs", 12, "--set", "x=0.75")
        assert [(event.params, event.parent) for event in run.state.queue] == [({"x": 0.75}, 0)]
        steered.done("trial", "extend", "curve", 0, "--epochs", 11)
        assert run.trials[0].extended_to == 11
        steered.done("enqueue", "curve", "--set", "x=0.25", person="bob@pc")
        assert (run.state.queue[1].params, run.state.queue[1].by) == ({"x": 0.25}, "bob@pc")
        steered.done("hold", "curve")
        assert run.held
        steered.done("release", "curve")
        assert not run.held
        steered.done("note", "curve/1", "flat from epoch 5 on")
        steered.done("tag", "curve", "paper=figure-3")
        text = SWEEP_FILE.format(store=steered.store, trials=7).replace("0.01", "0.2")
        steered.file.write_text(text)
        steered.done("edit", "curve", steered.file)
        assert run.spec.budget.trials == 7
    view = steered.view()
    assert view.trials[1].remarks[0].text == "flat from epoch 5 on"
    assert view.tags == {"paper": "figure-3"}
    shown = steered.done("show", "curve")
    assert shown["tags"] == {"paper": "figure-3"}
    assert shown["trials"][1]["notes"][0]["by"] == "ana@laptop"
    told = steered.command("logs", "curve").stderr + steered.command("logs", "curve").stdout
    for said in ("pinned it", "stops it after", "takes it up again", "enqueued a trial: x=0.25"):
        assert said in told, said


def test_every_act_on_a_resting_sweep_is_taken_up_when_it_goes_on(steered: Steered) -> None:
    waiting = [
        ("trial", "pin", "curve", 1),
        ("trial", "extend", "curve", 0, "--epochs", 11),
        ("enqueue", "curve", "--set", "x=0.25"),
        ("hold", "curve"),
        ("release", "curve"),
    ]
    for words in waiting:
        assert steered.done(*words)["waits"] is True, words
    assert len(steered.view().waiting_requests) == len(waiting)
    result = steered.command("show", "curve")
    assert "waiting for a driver: pin by ana@laptop" in result.stderr + result.stdout
    steered.done("note", "curve", "at once")
    assert steered.view().remarks[0].text == "at once"
    sweep = steered.drive()
    assert (sweep.run.trials[1].is_pinned, sweep.run.trials[0].extended_to) == (True, 11)
    assert not sweep.run.held
    sweep.run.lease.release()
    assert steered.done("trial", "stop", "curve", 1)["waits"] is False
    assert steered.view().trials[1].state == "STOPPED"


def test_what_cannot_be_is_one_line_that_says_why(steered: Steered) -> None:
    for words, why in [
        (("trial", "stop", "curve", 9), "sweep curve: trial 9: the sweep has 2 trials so far"),
        (("trial", "retry", "curve", 0), "only a FAILED or STOPPED trial is taken up again"),
        (("trial", "pin", "none", 0), "no sweep 'none' in"),
        (("enqueue", "curve", "--set", "y=1"), "--set y: sweep curve does not search it"),
        (("enqueue", "curve", "--set", "x=5"), "--set x=5: posetune.testing.toy:Toy does not"),
        (("enqueue", "curve", "--set", "x=1.5"), "x: 1.5 lies outside of [0.01, 1]"),
        (("note", "curve/x", "text"), "curve/x: must be SWEEP or SWEEP/N"),
        (("release", "curve"), "the sweep is not held"),
        (("edit", "curve", steered.file), "the file says what the sweep has already"),
    ]:
        result = steered.command(*words)
        assert result.returncode == 2, (words, result.stderr)
        assert why in " ".join(result.stderr.split()), words
        assert "Traceback" not in result.stderr


def test_list_finds_sweeps_by_tag_owner_and_state(steered: Steered) -> None:
    steered.done("tag", "curve", "paper=figure-3")

    def found(*options: str) -> list[str]:
        return [sweep["name"] for sweep in steered.done("list", *options)["sweeps"]]

    assert found() == found("--tag", "paper") == found("--tag", "paper=figure-3") == ["curve"]
    assert found("--tag", "paper=other") == found("--tag", "none") == []
    assert found("--state", "interrupted") == ["curve"]
    assert found("--state", "complete") == found("--owner", "nobody") == []


def test_a_sweep_is_steered_from_python(steered: Steered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSETUNE_DATABASE", steered.address)
    monkeypatch.setenv("POSETUNE_PERSON", "ana@notebook")
    sweep = posetune.open("curve", home=steered.folder / "home")
    with steered.driver_at_work() as at_work:
        assert sweep.enqueue(x=0.5).event
        assert sweep.pin(1).event
        assert sweep.stop(1).event
        assert sweep.retry(1).event
        assert sweep.extend(0, 12).event
        assert sweep.hold().event
        assert sweep.release().event
        assert sweep.note("from Python").event
        assert sweep.tag("a", "b", trial=1).event
        assert at_work.run.trials[1].tags == {"a": "b"}
        assert at_work.run.state.queue[0].by == "ana@notebook"
        with pytest.raises(BadInputError, match="trial 9"):
            sweep.stop(9)


def test_an_extended_toy_ends_bit_for_bit_where_one_asked_for_as_many_epochs_ends(
    tmp_path: Path, toy_store: Path
) -> None:
    """The real trainable and its real checkpoints, at a constant rate."""

    def sweep(name: str, max_epochs: int) -> Callable[[], CurveSweep]:
        database = open_database(f"sqlite:///{tmp_path / name}.db")
        home = Home.resolve(tmp_path / name).prepare()
        pruner = {"name": "none", "max_epochs": max_epochs}
        return lambda: CurveSweep(database, home, toy_store, pruner=pruner, fixed={})

    extend, ask = sweep("extended", 4), sweep("asked", 7)
    first = extend()
    first.train()
    first.run.close("finished")
    asking.ask(first.database, "curve", ExtendTrial(trial=0, epochs=7), by="ana@laptop")
    again = extend()
    again.train()
    whole = ask()
    whole.train()
    values = [run.run.trials[0].values for run in (again, whole)]
    assert values[0] == values[1]
    assert list(values[0]) == [1, 2, 3, 4, 5, 6, 7]
    states = [
        (run.home.folder / "storage" / run.run.trials[0].checkpoints[-1].folder / "state")
        for run in (again, whole)
    ]
    for file in states[0].iterdir():
        assert file.read_bytes() == (states[1] / file.name).read_bytes()
    for one in (again, whole):
        one.run.lease.release()


def test_a_new_trial_goes_on_from_the_state_of_its_parent(steered: Steered) -> None:
    steered.done("trial", "extend", "curve", 0, "--epochs", 11, "--set", "x=0.75")
    sweep = CurveSweep(
        steered.database,
        steered.home,
        steered.store,
        budget={"trials": 4},
        pruner={"name": "none", "max_epochs": 9},
        fixed={"curve": "9,8,7,6,1,2,3,4,5"},
    )
    sweep.train(epochs=9)  # trial 1, which was open
    sweep.run.take_up_requests()
    parent = sweep.run.trials[0].checkpoints[-1].folder
    trial = sweep.run.next_trial()
    assert trial is not None
    attempt = sweep.run.begin_attempt(trial.number)
    assert (trial.number, trial.parent, attempt.params) == (2, 0, {"x": 0.75})
    assert attempt.checkpoints[0].folder == parent
    assert sweep.run.spec_of(2).pruner.max_epochs == 11
    sweep.run.lease.release()


@pytest.mark.slow
def test_the_commands_of_the_page_run_in_their_order(steered: Steered, repository: Path) -> None:
    page = (repository / "docs" / "steering.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    assert len(lines) >= 10
    with steered.driver_at_work():
        for line in lines:
            words = shlex.split(line, comments=True)
            assert words[0] == "posetune", line
            if words[1] == "edit":
                text = SWEEP_FILE.format(store=steered.store, trials=7)
                (steered.folder / words[3]).write_text(text)
            result: subprocess.CompletedProcess[str] = steered.command(*words[1:])
            assert result.returncode == 0, (line, result.stderr)
