"""Two drivers of one study on a real Ray cluster: slots go to and fro, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.simulated_driver import outcome
from support.sweeps import Driver, Script, events, open_study, view

from posetune.study.events import Reported, SetAside, TrialEnded
from posetune.study.sharing.queue import read_queue

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

Write = Callable[..., Path]


def begin(file: Path, name: str, address: str, folder: Path) -> Driver:
    """Start the driver of a sweep; all have the home of the folder."""
    own = folder / name
    own.mkdir(parents=True)
    file = file.rename(own / "toy.yaml")
    words = ("sweep", file, "--name", name, "--address", address, "--no-tracking")
    return Driver(own, *words, POSETUNE_HOME=str(folder / "home"))


def in_the_queue(home: Path) -> dict[str, int | None]:
    """How many trials each driven sweep may have at work; None for one that is alone."""
    with open_study(home) as database:
        return {entry.sweep: entry.entitled for entry in read_queue(database)}


def waits_for(home: Path, name: str) -> str:
    found = view(home, name)
    return "" if found is None else found.waits_for


def outcome_of(home: Path, name: str) -> list[tuple[str, int]]:
    found = view(home, name)
    assert found is not None
    return [(str(trial.state), trial.epochs) for trial in found.trials]


def times(home: Path, kind: type[Any], name: str) -> list[float]:
    return [event.at for event in events(home, kind, name)]


@pytest.mark.timeout(600)
def test_the_only_slot_goes_to_the_higher_priority_and_the_first_sweep_ends_as_alone(
    compared_sweep: Write, toy_sweep: Write, undisturbed: str, ray_head: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    script = Script(tmp_path / "script", "wait")
    first = begin(
        compared_sweep(cpu=4, epoch_s=1.0, script=str(script.file)), "s", ray_head, tmp_path
    )
    first.until(script.is_over)
    file = toy_sweep(trials=2, max_epochs=2, cpu=4)
    file.write_text(file.read_text() + "cluster: {priority: 5}\n")
    second = begin(file, "urgent", ray_head, tmp_path)
    second.until(lambda: in_the_queue(home) == {"urgent": 1, "s": 0})
    script.let_go()
    first.until(lambda: events(home, SetAside, "s"))
    assert second.end() == 0, second.output
    assert first.end() == 0, first.output
    (given,) = events(home, SetAside, "s")
    assert given.why == "its slot goes to sweep urgent, by priority and share (posetune queue)"
    ends = times(home, TrialEnded, "urgent")[-1]
    assert all(at <= given.at or at >= ends for at in times(home, Reported, "s"))
    with open_study(home) as database:
        assert outcome(database, "s") == undisturbed


@pytest.mark.timeout(600)
def test_a_sweep_that_waits_for_a_place_lets_one_of_higher_priority_pass(
    toy_sweep: Write, ray_head: str, tmp_path: Path
) -> None:
    """It asked for the place while it was alone in its study; who has all slots knows neither."""
    home = tmp_path / "home"
    script = Script(tmp_path / "script", "wait")
    other = begin(
        toy_sweep(trials=1, cpu=4, script=str(script.file)), "s", ray_head, tmp_path / "other"
    )
    other.until(script.is_over)
    patient = begin(toy_sweep(trials=2, max_epochs=2, cpu=4), "patient", ray_head, tmp_path)
    patient.until(lambda: waits_for(home, "patient").startswith("a trial waits for cpu 4; "))
    file = toy_sweep(trials=2, max_epochs=2, cpu=4)
    file.write_text(file.read_text() + "cluster: {priority: 5}\n")
    urgent = begin(file, "urgent", ray_head, tmp_path)
    patient.until(lambda: waits_for(home, "patient").startswith("other sweeps are served first"))
    script.let_go()
    for driver in (other, urgent, patient):
        assert driver.end() == 0, driver.output
    (given,) = events(home, SetAside, "patient")
    assert given.why == "its slot goes to sweep urgent, by priority and share (posetune queue)"
    assert times(home, Reported, "patient")[0] > times(home, TrialEnded, "urgent")[-1]
    assert outcome_of(home, "patient") == [("COMPLETE", 2)] * 2


@pytest.mark.timeout(600)
def test_two_sweeps_train_side_by_side_on_the_slots_of_one(
    toy_sweep: Write, ray_head: str, tmp_path: Path
) -> None:
    """While the first is in the middle of an epoch, no idle worker holds the other slot."""
    home, beside = tmp_path / "home", tmp_path / "beside"
    script = Script(tmp_path / "script", "wait", "wait")
    file = toy_sweep(trials=6, cpu=2, script=str(script.file))
    file.write_text(file.read_text().replace("name: asha", "name: none"))
    first = begin(file, "one", ray_head, tmp_path)
    first.until(script.is_over)
    second = begin(toy_sweep(trials=3, cpu=2), "two", ray_head, tmp_path)
    second.until(lambda: in_the_queue(home) == {"one": 1, "two": 1})
    script.file.write_text(f"wait {beside}\n")
    script.let_go()
    first.until(script.is_over)  # one of its trials waits in an epoch, until `beside` is there
    second.until(lambda: events(home, Reported, "two"))
    beside.touch()
    assert second.end() == 0, second.output
    assert first.end() == 0, first.output
    for name, trials in (("one", 6), ("two", 3)):
        found = view(home, name)
        assert found is not None
        assert (found.state, len(found.trials)) == ("COMPLETE", trials)
        reported = [(event.trial, event.epoch) for event in events(home, Reported, name)]
        assert len(reported) == len(set(reported))
