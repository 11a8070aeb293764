"""Deleting a sweep takes all of it, and nothing that anything else needs."""

from __future__ import annotations

import io
import json
import random
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from support.worlds import World, go_on, random_world

from posetune.notifications import outbox
from posetune.notifications.messages import Message
from posetune.promotion.judging.test_looks import count_test_looks, record_test_look
from posetune.spec.notify import EVENTS, parse_destinations
from posetune.storage import Folder
from posetune.study.acts.act import HoldSweep
from posetune.study.acts.asking import ask
from posetune.study.tables import schema
from posetune.study.tables.lease import Lease
from posetune.workflow.delete import DELETING, delete_sweep

ADDRESSES = ["sqlite", "postgres"]


@pytest.fixture(params=ADDRESSES)
def world(request: pytest.FixtureRequest, tmp_path: Path, toy_store: Path) -> Iterator[World]:
    """An empty study, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path / 'home' / 'study.db'}"
    else:
        address = request.getfixturevalue("postgres_database")
    made = World(tmp_path, address, toy_store)
    yield made
    made.database.close()


def rows_left(world: World) -> dict[str, int]:
    """How many rows each table has that holds something of a sweep."""
    tables = (schema.sweep, schema.event, schema.tracked, schema.request, schema.lease)
    with world.database.reading() as connection:
        counts = {t.name: select(func.count()).select_from(t) for t in tables}
        return {name: connection.execute(query).scalar_one() for name, query in counts.items()}


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 6))]
)
def test_nothing_is_deleted_that_anything_else_needs(
    seed: int, tmp_path: Path, toy_store: Path
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "twin").mkdir()
    world, twin = (
        random_world(tmp_path / name, f"sqlite:///{tmp_path / name / 'study.db'}", toy_store, seed)
        for name in ("one", "twin")
    )
    doomed = [name for name in world.names if name != "heir"]
    random.Random(f"in which order {seed}").shuffle(doomed)

    for name in doomed:
        stay = [other for other in world.names if other != name]
        before = {other: world.everything_of(other) for other in stay}
        result = world.command("delete", name, "--yes")
        assert result.returncode == 0, result.stderr
        assert world.names == stay
        assert {other: world.everything_of(other) for other in stay} == before
        for place in ("checkpoints", "logs"):
            assert name not in world.home.storage.children(place)

    assert world.names == ["heir"]
    assert go_on(world, "heir") == go_on(twin, "heir")
    world.database.close()
    twin.database.close()


def test_all_of_a_sweep_goes_and_what_is_about_the_data_stays(world: World) -> None:
    world.sweep("first")
    identity = world.view("first").id
    destination = parse_destinations([{"webhook": "http://127.0.0.1:9/nobody"}])
    outbox.make_tables(world.database)
    outbox.set_destinations(world.database, identity, destination, ())
    message = Message("m", EVENTS[0], 0.0, "", "what a driver left", {})
    world.database.write(lambda c: outbox.put(c, identity, [message], destination))
    ask(world.database, "first", HoldSweep(), by="bo@desk")
    digest = world.view("first").store_digest
    record_test_look(world.database, digest, why="evaluate", model="m")

    result = world.command("delete", "first", "--yes", "--json")

    said = json.loads(result.stdout)
    assert (said["sweep"], said["trials"], said["forgotten_messages"]) == ("first", 4, 1)
    assert said["left"]["stages"] == len(world.home.storage.children("stages/floor"))
    assert set(rows_left(world).values()) == {0}
    with world.database.reading() as connection:
        assert outbox.waiting(connection) == []
        assert outbox.cursors(connection) == []
    assert count_test_looks(world.database, digest) == 1


def test_the_name_and_the_id_of_a_deleted_sweep_are_free(world: World) -> None:
    world.sweep("first", seed=1)
    world.command("delete", "first", "--yes")

    world.sweep("first", seed=2, trials=2)

    assert len(world.view("first").trials) == 2
    assert world.view("first").tags == {}


def test_a_sweep_that_a_driver_is_at_work_on_stays(world: World) -> None:
    world.sweep("first", epochs=3)
    before = world.everything_of("first")
    lease = Lease(world.database, world.view("first").id, "first")

    result = world.command("delete", "first", "--yes")

    assert result.returncode == 2
    assert f"is being driven by process {lease_pid(world)} on {socket.gethostname()}" in (
        result.stderr
    )
    assert world.everything_of("first") == before
    lease.release()


def lease_pid(world: World) -> int:
    with world.database.reading() as connection:
        return int(connection.execute(select(schema.lease.c.pid)).scalar_one())


def test_nobody_deletes_a_sweep_by_mistake(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sweep("first", by="bo@desk")

    refused = world.command("delete", "first", "--yes")
    mistaken = world.command("delete", "first", "--yes", "--owner", "cy")
    unasked = world.command("delete", "first", "--owner", "bo", "--json")
    answers = {}
    for answer in ("", "n\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        answers[answer] = world.command("delete", "first", "--owner", "bo")

    assert refused.returncode == 2
    assert "was started by bo@desk, and you are ana" in refused.stderr
    assert (mistaken.returncode, unasked.returncode) == (2, 2)
    for asked in answers.values():
        assert asked.returncode == 1
        assert "Delete sweep first: 4 trials with" in asked.stderr
    assert world.names == ["first"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert world.command("delete", "first", "--owner", "bo").returncode == 0
    assert world.names == []


def test_a_sweep_that_is_not_there_is_one_line(world: World) -> None:
    world.sweep("first", epochs=1)

    result = world.command("delete", "secnd", "--yes")

    assert result.returncode == 2
    assert "no sweep 'secnd'" in result.stderr


class Killed(BaseException):
    """Ends a command as a kill does."""


@dataclass(frozen=True)
class Killing(Folder):
    """A storage whose user is killed at its n-th deletion, before or after it."""

    at: int = 0
    after: bool = False
    seen: tuple[list[str], ...] = ([],)

    def remove(self, name: str) -> None:
        """Delete, unless it is the time."""
        self.seen[0].append(name)
        is_time = len(self.seen[0]) == self.at
        if is_time and not self.after:
            raise Killed
        super().remove(name)
        if is_time:
            raise Killed


@pytest.mark.slow
@pytest.mark.parametrize(("at", "after"), [(1, False), (1, True), (2, False), (2, True)])
def test_a_deletion_that_was_killed_is_ended_by_the_same_command(
    world: World, at: int, after: bool
) -> None:
    world.sweep("other", seed=3)
    world.sweep("first")
    before = world.everything_of("other")
    storage = Killing(world.home.storage.root, at, after, ([],))  # type: ignore[attr-defined]
    home = world.home.model_copy(update={"storage": storage})

    with pytest.raises(Killed):
        delete_sweep(world.database, home, "first", by="ana@laptop")

    assert world.view("first").tags == {DELETING: "by ana@laptop"}  # whoever looks is told
    again = world.command("delete", "first", "--yes")
    assert again.returncode == 0, again.stderr
    assert world.names == ["other"]
    assert world.everything_of("other") == before
    assert world.home.storage.children("checkpoints") == ["other"]


def test_a_study_of_before_is_told_to_be_upgraded(world: World) -> None:
    world.sweep("first", epochs=1)
    world.database.write(lambda c: c.execute(schema.about.update().values(version=3)))

    results: list[Any] = [
        world.command("delete", "first", "--yes"),
        world.command("archive", "first", "--to", "first.tar"),
    ]

    for result in results:
        assert result.returncode == 2
        assert "posetune upgrade" in result.stderr
