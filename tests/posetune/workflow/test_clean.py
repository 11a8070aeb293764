"""A retention rule takes old sweeps away, and none that the rule or anybody else keeps."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from support.commands import run_here
from support.worlds import World

from posetune.study.acts.act import Enqueue, ExtendTrial, SetTag
from posetune.study.acts.asking import ask
from posetune.study.tables import schema
from posetune.study.tables.lease import Lease

DAY_S = 86_400.0
BEFORE = Path(__file__).parents[1] / "study" / "before"


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


def test_a_sweep_that_somebody_has_asked_to_go_on_stays(world: World) -> None:
    rule(world, "older_than: 90d, keep: []")
    more = ExtendTrial(trial=world.view("older").trials[0].number, epochs=9)
    ask(world.database, "older", more, by="ana@laptop")
    ask(world.database, "open", Enqueue(params={"x": 0.5, "depth": 3}), by="ana@laptop")
    said = clean(world, "--yes")
    stays = {one["sweep"]: one["kept"] for one in said["sweeps"]}
    assert stays["older"] == stays["open"] == "somebody has asked for something"
    assert said["deleted"] == ["old"]


class Meanwhile(io.StringIO):
    """A terminal whose user says yes after somebody else has done something."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self.act = act

    def readline(self, *_: Any) -> str:
        self.act()
        return "y\n"


def test_what_is_wanted_while_the_question_stands_open_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule(world, "older_than: 90d, keep: []")
    tag = SetTag(name="paper", value="")
    open_question = Meanwhile(lambda: ask(world.database, "older", tag, by="ana@laptop"))
    monkeypatch.setattr(sys, "stdin", open_question)
    said = world.command("clean")
    assert said.returncode == 0, said.stderr
    assert "Delete 3 sweeps?" in said.stderr
    assert "sweep older: stays after all: younger than 90d" in said.stderr
    assert "2 sweeps deleted" in said.stderr
    assert world.names == ["older", "theirs", "young"]


def test_one_sweep_is_counted_as_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rule(world, "older_than: 130d, keep: [unfinished]")
    assert "\n1 sweep would be deleted, " in world.command("clean", "--dry-run").stderr
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    said = world.command("clean").stderr
    assert "by the rule" in said
    assert "Delete 1 sweep?" in said
    assert said.endswith("1 sweep deleted\n")


def test_a_study_with_tables_of_before_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    shutil.copy(BEFORE / "study_v2.db", tmp_path / "home" / "study.db")
    (tmp_path / "home" / "posetune.yaml").write_text("retention: {older_than: 90d}\n")
    refused = run_here("clean", "--dry-run", folder=tmp_path)
    assert refused.returncode == 2
    assert "has tables of an earlier version" in refused.stderr
    assert "(posetune upgrade)" in refused.stderr
    assert refused.stderr.count("\n") == 1


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
    number = age if age == "90" else repr(age)
    wanted = f"older_than: write days or weeks with their letter, e.g. 90d or 12w, got {number}"
    assert wanted in refused.stderr


@pytest.mark.parametrize("kept", ["best", "[latest]", "[[best]]"])
def test_what_is_no_list_of_what_stays_is_refused_with_how_to_write_it(
    world: World, kept: str
) -> None:
    rule(world, f"older_than: 90d, keep: {kept}")
    refused = world.command("clean", "--dry-run")
    assert refused.returncode == 2
    wanted = "keep: write a list of what stays, of best, registered and unfinished, e.g. [best]"
    assert f"posetune.yaml:1: retention.{wanted}" in refused.stderr
