"""A retention rule takes old sweeps away, and none that the rule or anybody else keeps."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from support.worlds import World

from posetune.study.acts.act import SetTag
from posetune.study.acts.asking import ask
from posetune.study.tables import schema
from posetune.study.tables.lease import Lease

DAY_S = 86_400.0


@pytest.fixture
def world(tmp_path: Path, toy_store: Path) -> World:
    """Five sweeps: `old` and `older` are ana's, `open` is not finished, `theirs` is bo's."""
    made = World(tmp_path, f"sqlite:///{tmp_path / 'home' / 'study.db'}", toy_store)
    for seed, name in enumerate(("older", "old", "young")):
        made.sweep(name, seed=seed)
    made.sweep("open", seed=3, epochs=2)
    made.sweep("theirs", seed=4, by="bo@desk")
    for name, days in {"older": 200, "old": 100, "open": 150, "theirs": 120}.items():
        age(made, name, days)
    rule(made, "older_than: 90d")
    return made


def age(world: World, name: str, days: float) -> None:
    """Let all of a sweep have happened some days earlier."""
    table = schema.event
    of_sweep = table.c.sweep_id == world.view(name).id
    with world.database.engine.begin() as connection:
        connection.execute(update(table).where(of_sweep).values(at=table.c.at - days * DAY_S))


def rule(world: World, text: str) -> None:
    (world.home.folder / "posetune.yaml").write_text(f"retention: {{{text}}}\n")


def clean(world: World, *words: str, code: int = 0) -> dict[str, Any]:
    result = world.command("clean", "--json", *words)
    assert result.returncode == code, result.stderr
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def kept(world: World, *words: str) -> dict[str, str]:
    return {one["sweep"]: one["kept"] for one in clean(world, "--dry-run", *words)["sweeps"]}


def best_of(world: World) -> str:
    """The sweep with the best value."""
    values = {n: b.chosen.value for n in world.names if (b := world.view(n).best) and b.chosen}
    return min(values, key=lambda name: values[name])


def test_it_says_of_each_sweep_why_it_stays(world: World) -> None:
    best = best_of(world)
    found = kept(world)
    assert next(iter(found)) == "older", "the oldest comes first"
    assert found["young"] == "younger than 90d"
    assert found["open"] == "it is not finished"
    assert found["theirs"] == (
        "it is the best on its data"
        if best == "theirs"
        else "it is bo's (--everybody takes it, too)"
    )
    for name in ("old", "older"):
        assert found[name] == ("it is the best on its data" if best == name else "")
    age(world, "young", 110)
    leading = [n for n, why in kept(world, "--everybody").items() if "best on its data" in why]
    assert leading == [best]
    rule(world, "older_than: 15w, keep: []")
    assert kept(world, "--everybody") == {
        "older": "",
        "open": "",
        "theirs": "",
        "young": "",
        "old": "younger than 15w",
    }
    assert len(world.names) == 5, "a dry run deletes nothing"


def test_it_deletes_what_nobody_keeps_and_nothing_else(world: World) -> None:
    rule(world, "older_than: 90d, keep: [unfinished]")
    ask(world.database, "old", SetTag(name="keep", value=""), by="ana@laptop")
    age(world, "old", 100)
    staying = ["old", "open", "theirs", "young"]
    before = {name: world.everything_of(name) for name in staying}
    assert clean(world, "--yes")["deleted"] == ["older"]
    assert world.names == staying
    assert {name: world.everything_of(name) for name in staying} == before
    assert clean(world, "--yes")["deleted"] == []


def test_a_sweep_that_is_driven_stays(world: World) -> None:
    rule(world, "older_than: 90d, keep: []")
    view = world.view("older")
    lease = Lease(world.database, view.id, "older")
    try:
        assert kept(world)["older"] == "a driver is at work"
    finally:
        lease.release()


def test_it_asks_and_needs_a_rule(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = world.command("clean", "--json")
    assert refused.returncode == 2
    assert "--json: nobody can be asked" in refused.stderr
    for answer in ("", "n\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        asked = world.command("clean")
        assert asked.returncode == 1
        assert "Delete 2 sweeps?" in asked.stderr
    assert len(world.names) == 5
    (world.home.folder / "posetune.yaml").unlink()
    without = world.command("clean", "--yes")
    assert without.returncode == 2
    assert "has no retention rule; write e.g. retention: {older_than: 90d}" in without.stderr


@pytest.mark.parametrize("age", ["90", "0d", "three months", "9h"])
def test_an_age_that_is_none_is_refused_with_its_line(world: World, age: str) -> None:
    rule(world, f"older_than: {age}")
    refused = world.command("clean", "--dry-run")
    assert refused.returncode == 2
    assert "posetune.yaml:1" in refused.stderr
    assert "older_than" in refused.stderr
