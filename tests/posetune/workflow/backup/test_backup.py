"""A backup, made while a sweep runs, goes on in another home as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect
from support.shared_cluster import SharedCluster
from support.worlds import World, go_on

from posetune.notifications import outbox
from posetune.storage import Folder, open_storage
from posetune.study.sharing import demands
from posetune.study.tables.lease import Lease
from posetune.study.tables.shipped import begin_shipping
from posetune.study.tables.table_rows import read_lines, tables_of
from posetune.study.tables.whole_study import STUDY_TABLES
from posetune.workflow.backup import back_up, sha256_of
from posetune.workflow.restore import restore

Worlds = Callable[..., World]


@pytest.mark.parametrize("epochs", [1, 4, 7, 1_000])
def test_a_restored_home_is_what_it_was_and_goes_on_as_if_undisturbed(
    worlds: Worlds, place: str, undisturbed: list[Any], epochs: int
) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first", epochs=epochs)
    here.command("note", "first", "looks good")
    lease = Lease(here.database, here.view("first").id, "first")  # its driver is at work

    made = here.command("backup", "--to", place, "--json")
    restored = there.command("restore", place, "--json")
    lease.release()

    assert made.returncode == 0, made.stderr
    assert restored.returncode == 0, restored.stderr
    assert json.loads(made.stdout)["missing"] == []
    assert json.loads(restored.stdout)["sweeps"] == ["first"]
    everything = there.everything_of("first")
    assert everything == here.everything_of("first")
    assert "gone" not in everything["folders"].values()
    assert "looks good" in there.command("logs", "first").stderr
    assert go_on(there, "first") == undisturbed
    assert go_on(here, "first") == undisturbed


def test_a_restored_study_numbers_new_sweeps_behind_those_that_it_got(
    worlds: Worlds, place: str
) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first", epochs=2)
    here.sweep("second", epochs=2)
    here.command("backup", "--to", place)
    there.command("restore", place)

    there.sweep("third", epochs=2)

    assert there.names == ["first", "second", "third"]
    assert there.view("third").id > here.view("second").id


@dataclass(frozen=True)
class Meanwhile(Folder):
    """A storage whose sweep goes on between any two of its folders that are read."""

    go_on: Callable[[], None] = lambda: None

    @contextmanager
    def reading(self, name: str) -> Iterator[Path | None]:
        """Let the sweep go on, then give the folder as it is then."""
        self.go_on()
        with super().reading(name) as folder:
            yield folder


@pytest.mark.parametrize("kind", ["sqlite and folders"], indirect=True)
@pytest.mark.parametrize("pace", [1, 2, 3])
def test_a_backup_is_whole_though_the_sweep_goes_on_and_deletes_what_was_named(
    worlds: Worlds, place: str, undisturbed: list[Any], pace: int
) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first", epochs=3)
    steps: list[int] = []

    def step() -> None:
        if len(steps) < 6:
            steps.append(pace)
            here.sweep("first", epochs=pace)

    storage = Meanwhile(here.home.storage.root, step)  # type: ignore[attr-defined]
    home = here.home.model_copy(update={"storage": storage})
    before = [c.folder for t in here.view("first").trials for c in t.checkpoints]

    made = back_up(here.database, home, place, by="ana@laptop")
    there.command("restore", place)

    now = {c.folder for t in here.view("first").trials for c in t.checkpoints}
    assert set(before) - now, "none of them was deleted meanwhile"
    assert made.missing == []
    kept = {c.folder for t in there.view("first").trials for c in t.checkpoints}
    stored = {
        f"checkpoints/first/{trial}/{child}"
        for trial in open_storage(place).children("storage/checkpoints/first")
        for child in open_storage(place).children(f"storage/checkpoints/first/{trial}")
    }
    assert stored == kept, "the backup has what its study names, and no more"
    assert go_on(there, "first") == undisturbed


def test_what_is_lost_is_named_and_keeps_nothing_else_back(worlds: Worlds, place: str) -> None:
    here, there = worlds("here"), worlds("there")
    view = here.sweep("first")
    lost = next(c.folder for t in view.trials for c in t.checkpoints)
    here.home.storage.remove(lost)

    made = here.command("backup", "--to", place)

    assert f"not in storage any more, or damaged: {lost}" in made.stderr
    assert f"not in the backup: {lost}" in there.command("restore", place).stderr
    assert there.outcome("first") == here.outcome("first")


class Killed(BaseException):
    """Ends a command as a kill does."""


@dataclass(frozen=True)
class Killing(Folder):
    """A storage whose user is killed in the middle of its n-th folder."""

    at: int = 0
    seen: tuple[list[str], ...] = ([],)

    @contextmanager
    def _killing(self, name: str) -> Iterator[None]:
        self.seen[0].append(name)
        yield
        if len(self.seen[0]) == self.at:
            raise Killed

    @contextmanager
    def reading(self, name: str) -> Iterator[Path | None]:
        """Give a folder, and die if it is the time."""
        with super().reading(name) as folder:
            yield folder
        with self._killing(name):
            pass

    @contextmanager
    def writing(self, name: str, *, last: str = "") -> Iterator[Path]:
        """Store a folder, unless it is the time."""
        with super().writing(name, last=last) as folder, self._killing(name):
            yield folder


@pytest.mark.parametrize("kind", ["sqlite and folders"], indirect=True)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_backup_and_restore_that_were_killed_are_ended_by_the_same_commands(
    worlds: Worlds, place: str, at: int
) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first", epochs=5)

    def killing(world: World) -> Any:
        storage = Killing(world.home.storage.root, at, ([],))  # type: ignore[attr-defined]
        return world.home.model_copy(update={"storage": storage})

    with pytest.raises(Killed):
        back_up(here.database, killing(here), place, by="ana@laptop")
    half = there.command("restore", place)
    made = here.command("backup", "--to", place)
    with pytest.raises(Killed):
        restore(there.database, killing(there), place)
    assert there.names == []
    again = there.command("restore", place)
    once_more = there.command("restore", place)

    assert (half.returncode, made.returncode, again.returncode, once_more.returncode) == (
        2,
        0,
        0,
        0,
    )
    assert half.stderr.startswith(f"error: {place}: is no whole backup")
    assert there.everything_of("first") == here.everything_of("first")
    assert not list(Path(place).rglob("*.partial"))


def with_rows(place: str, lines: list[str]) -> None:
    """Put rows into a backup, as one has them that was made by an older posetune."""
    rows = Path(place) / "rows"
    with (rows / "study.jsonl").open("a") as file:
        file.writelines(lines)
    manifest = json.loads((rows / "backup.json").read_text())
    manifest["rows"]["study.jsonl"] = sha256_of(rows / "study.jsonl")
    (rows / "backup.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("kind", ["sqlite and folders"], indirect=True)
@pytest.mark.parametrize("older", [False, True])
def test_a_study_whose_sweeps_shared_a_cluster_is_restored(
    worlds: Worlds, place: str, older: bool
) -> None:
    here, there = worlds("here"), worlds("there")
    cluster = SharedCluster(here.database, slots=4)
    cluster.begin("first", trials=6)
    cluster.begin("second", trials=6, seed=1)
    cluster.epochs(3)
    with here.database.reading() as connection:
        tables = [t for t in tables_of(connection, but=()) if t.name == "demand"]
        of_drivers = list(read_lines(connection, tables))
    assert len(of_drivers) == 2, "the drivers have written down what they hold"

    made = here.command("backup", "--to", place, "--no-tracking")
    cluster.leave(["first", "second"])
    if older:
        with_rows(place, of_drivers)
    restored = there.command("restore", place)
    again = there.command("restore", place)

    assert made.returncode == 0, made.stderr
    assert (restored.returncode, again.returncode) == (0, 0), restored.stderr + again.stderr
    assert there.names == ["first", "second"]
    for name in there.names:
        assert there.everything_of(name)["rows"] == here.everything_of(name)["rows"]


def test_all_tables_that_a_study_may_have_are_known(worlds: Worlds, mlflow_template: Path) -> None:
    here = worlds("here")
    outbox.make_tables(here.database)
    demands.make_table(here.database)
    begin_shipping(here.database, 1, "http://mlflow:5000")

    with here.database.reading() as connection:
        assert set(inspect(connection).get_table_names()) == STUDY_TABLES
    of_mlflow = inspect(create_engine(f"sqlite:///{mlflow_template}")).get_table_names()
    assert of_mlflow
    assert not STUDY_TABLES & set(of_mlflow)
