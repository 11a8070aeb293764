"""Who has used how much, and what it cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.simulated_driver import happened
from support.worlds import World

from posetune.study.act_events import TagSet
from posetune.study.acts.act import SetTag
from posetune.study.acts.asking import ask
from posetune.study.driving.sweep import StaleAttemptError
from posetune.study.events import AttemptPlaced, Reported, TrialEnded
from posetune.study.usage import read_usage


@pytest.fixture
def world(tmp_path: Path, toy_store: Path) -> World:
    """Sweeps of two people; `a` and `b` are ana's, `c` is bo's."""
    made = World(tmp_path, f"sqlite:///{tmp_path / 'study.db'}", toy_store)
    for name, by in (("a", "ana@laptop"), ("b", "ana@desk"), ("c", "bo@desk")):
        made.sweep(name, by=by, gpu=2.0 if name == "a" else 0.0)
    for name, tag, value in (
        ("a", "paper", "figure-3"),
        ("c", "paper", "figure-3"),
        ("c", "x", ""),
    ):
        ask(made.database, name, SetTag(name=tag, value=value), by="ana@laptop")
    assert len(happened(made.database, TagSet)) == 3
    return made


def usage(world: World, *words: str) -> dict[str, Any]:
    result = world.command("usage", *words, "--json")
    assert result.returncode == 0, result.stderr
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def test_the_sum_is_what_the_sweeps_themselves_say(world: World) -> None:
    views = {name: world.view(name) for name in world.names}

    said = usage(world, "--by", "sweep")

    assert {g["name"] for g in said["groups"]} == {"a", "b", "c"}
    for g in said["groups"]:
        view = views[g["name"]]
        assert (g["trials"], g["epochs"]) == (len(view.trials), len(view.reports))
        held_s = sum(trial.held_s for trial in view.trials)
        assert g["slot_hours"] == pytest.approx(held_s / 3600, rel=1e-9)
        gpu_hours = view.gpu_hours if view.spec.resources.gpu else 0.0
        assert g["gpu_hours"] == pytest.approx(gpu_hours, rel=1e-9)
        assert g["cost"] is None
    for key in ("trials", "epochs", "slot_hours", "gpu_hours"):
        assert said["total"][key] == pytest.approx(sum(g[key] for g in said["groups"]))


def test_owners_are_people_and_tags_may_overlap(world: World) -> None:
    owners = {g["name"]: g["sweeps"] for g in usage(world)["groups"]}
    tags = {g["name"]: g["sweeps"] for g in usage(world, "--by", "tag")["groups"]}

    assert owners == {"ana": 2, "bo": 1}
    assert tags == {"paper=figure-3": 2, "(none)": 1, "x": 1}


def test_only_what_was_used_since_then_counts(world: World) -> None:
    reports = happened(world.database, Reported, "a")
    begun = happened(world.database, AttemptPlaced, "a")
    ended = happened(world.database, TrialEnded, "a")
    cut = reports[len(reports) // 2].at

    since = {u.sweep: u for u in read_usage(world.database, since=cut)}["a"]
    whole = {u.sweep: u for u in read_usage(world.database)}["a"]

    assert since.epochs == sum(report.at >= cut for report in reports)
    assert 0 < since.epochs < whole.epochs == len(reports)
    assert 0 <= since.held_s <= ended[-1].at - cut
    assert since.held_s < whole.held_s <= ended[-1].at - begun[0].at
    assert usage(world, "--since", "2100-01-01")["total"]["trials"] == 0


@pytest.mark.slow
def test_the_cost_stands_wherever_hours_of_gpus_do(world: World, tmp_path: Path) -> None:
    (world.home.folder / "posetune.yaml").write_text("cost_per_gpu_hour: 36000\ncurrency: EUR\n")
    hours = world.view("a").gpu_hours

    said = usage(world, "--by", "sweep")
    shown = json.loads(world.command("show", "a", "--json").stdout)["cost"]
    without = json.loads(world.command("show", "b", "--json").stdout)["cost"]
    words = world.command("show", "a").stderr
    page = tmp_path / "a.html"
    world.command("report", "a", "--out", page, "--no-log", "--no-evaluate")

    costs = {g["name"]: g["cost"] for g in said["groups"]}
    assert costs["a"] == pytest.approx(36000 * hours)
    assert (costs["b"], said["currency"]) == (0.0, "EUR")
    amount = {"amount": 36000 * hours, "currency": "EUR", "per_gpu_hour": 36000.0}
    assert (shown, without) == (pytest.approx(amount), None)
    line = f"{36000 * hours:.2f} EUR"
    assert f"cost so far: {line}" in words
    assert line in page.read_text()
    assert "cost EUR" in world.command("usage").stderr


def measured(world: World, name: str, *joules: float) -> None:
    """A sweep with a trial whose attempts have taken energy."""
    world.sweep(name, epochs=0, trials=1, gpu=0.5)
    run = world.driver(name)
    trial = run.next_trial()
    assert trial is not None
    for one in joules:
        attempt = run.begin_attempt(trial.number)
        run.energy_used(trial.number, attempt.number, one)
    with pytest.raises(StaleAttemptError):
        run.energy_used(trial.number, 1, 1e9)
    run.lease.release()
    world.sweep(name, trials=1, gpu=0.5)


@pytest.mark.slow
def test_energy_stands_wherever_hours_of_gpus_do_and_only_where_it_was_measured(
    world: World, tmp_path: Path
) -> None:
    measured(world, "m", 1.8e6, 0.9e6)

    said = {g["name"]: g["energy_kwh"] for g in usage(world, "--by", "sweep")["groups"]}
    shown = {n: json.loads(world.command("show", n, "--json").stdout) for n in ("a", "m")}
    words = {n: world.command("show", n).stderr for n in ("a", "m")}
    pages = {}
    for name in ("a", "m"):
        out = tmp_path / f"{name}.html"
        world.command("report", name, "--out", out, "--no-log", "--no-evaluate")
        pages[name] = out.read_text()
    metrics = {
        m["labels"]["sweep"]: m["value"]
        for m in json.loads(world.command("metrics", "--json").stdout)["metrics"]
        if m["name"] == "posetune_energy_joules_total"
    }
    history = [e["text"] for e in json.loads(world.command("logs", "m", "--json").stdout)["events"]]

    assert said == {"a": None, "b": None, "c": None, "m": 0.75}
    assert [shown[n]["used"]["energy_kwh"] for n in ("a", "m")] == [None, 0.75]
    assert [shown[n]["trials"][0]["energy_kwh"] for n in ("a", "m")] == [None, 0.75]
    for of_all in (words, pages):
        assert "0.75 kWh of GPUs, as part of shared GPUs" in " ".join(of_all["m"].split())
        assert "kWh of GPUs" not in of_all["a"]
    assert metrics == {"m": 2.7e6}
    assert "attempt 2 has taken another 900 kJ of its GPUs" in history
    table = world.command("usage", "--by", "sweep").stderr
    assert "kWh of GPUs" in table
    assert "0.75" in table
    assert usage(world, "--since", "2100-01-01")["total"]["energy_kwh"] is None


def test_where_nothing_was_measured_the_table_has_no_energy(world: World) -> None:
    assert "kWh" not in world.command("usage").stderr
    assert usage(world)["total"]["energy_kwh"] is None


@pytest.mark.parametrize("since", ["yesterday", "30", "-3d", "3y", ""])
def test_a_time_that_means_nothing_is_one_line(world: World, since: str) -> None:
    result = world.command("usage", f"--since={since}")

    assert result.returncode == 2
    assert f"--since {since}: must be a time like 30d" in result.stderr


@pytest.mark.parametrize("line", ["cost_per_gpu_hour: free", "cost_per_gpu_hour: 0", "price: 1"])
def test_a_mistake_in_the_homes_file_names_its_key(world: World, line: str) -> None:
    file = world.home.folder / "posetune.yaml"
    file.write_text(f"{line}\n")

    result = world.command("usage")

    assert result.returncode == 2
    assert f"{file}:1" in result.stderr
    assert line.partition(":")[0] in result.stderr
