"""A backup, made while a sweep runs, goes on in another home as if nothing had happened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
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
from posetune.tracking.projection import ship
from posetune.trial.checkpoints import log_file
from posetune.workflow.backup import back_up, sha256_of
from posetune.workflow.restore import restore

Worlds = Callable[..., World]


@dataclass
class Kind:
    """Where the studies, storages and backups of a test are."""

    addresses: list[str]
    """Those of empty study databases; SQLite in the home where there is none left."""
    bucket: str = ""


@pytest.fixture(
    params=["sqlite and folders", pytest.param("postgres and s3", marks=pytest.mark.long)]
)
def kind(request: pytest.FixtureRequest) -> Kind:
    if request.param == "sqlite and folders":
        return Kind([])
    fixtures = ["postgres_database", "other_postgres_database"]
    return Kind(list(map(request.getfixturevalue, fixtures)), request.getfixturevalue("bucket"))


@pytest.fixture
def worlds(kind: Kind, tmp_path: Path, toy_store: Path) -> Iterator[Worlds]:
    """Make worlds of a name."""
    made: list[World] = []

    def make(name: str, **given: str) -> World:
        (tmp_path / name).mkdir()
        own = f"sqlite:///{tmp_path / name / 'study.db'}"
        address = kind.addresses.pop() if kind.addresses else own
        storage = f"{kind.bucket}/{name}" if kind.bucket else ""
        made.append(World(tmp_path / name, address, toy_store, **{"storage": storage, **given}))
        return made[-1]

    yield make
    for world in made:
        world.database.close()


@pytest.fixture
def place(kind: Kind, tmp_path: Path) -> str:
    """The address of a backup."""
    return f"{kind.bucket}/backup" if kind.bucket else str(tmp_path / "backup")


@pytest.fixture
def undisturbed(tmp_path: Path, toy_store: Path) -> list[Any]:
    """What the sweep `first` comes to."""
    (tmp_path / "undisturbed").mkdir()
    address = f"sqlite:///{tmp_path / 'undisturbed' / 'study.db'}"
    world = World(tmp_path / "undisturbed", address, toy_store)
    world.sweep("first")
    outcome = world.outcome("first")
    world.database.close()
    return outcome


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


@pytest.mark.parametrize("what", ["rows/study.jsonl", "rows/backup.json", "state.bin", ".log"])
def test_a_damaged_backup_is_one_line_and_leaves_no_sweep(
    worlds: Worlds, place: str, tmp_path: Path, what: str
) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first")
    here.command("backup", "--to", place)
    damage(place, what)

    result = there.command("restore", place)

    assert result.returncode == 2
    assert "is a damaged backup" in result.stderr
    assert result.stderr.count("\n") == 1
    assert there.names == []


def damage(place: str, what: str) -> None:
    """Cut a byte off the first file whose name ends so."""
    if not place.startswith("s3://"):
        file = next(f for f in sorted(Path(place).rglob("*")) if f.as_posix().endswith(what))
        file.write_bytes(file.read_bytes()[:-1])
        return
    storage = open_storage(place)
    with storage.reading("") as copy:
        assert copy is not None
        file = next(f for f in sorted(copy.rglob("*")) if f.as_posix().endswith(what))
        name = file.relative_to(copy)
        kept = replace(storage, path=f"{storage.path}/{name.parent.as_posix()}")  # type: ignore[call-arg,type-var]
        file.write_bytes(file.read_bytes()[:-1])
        kept._put(file, name.name)  # type: ignore[attr-defined]


def test_places_that_are_not_empty_are_refused(worlds: Worlds, place: str, tmp_path: Path) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first", epochs=3)
    there.sweep("second", epochs=3)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    here.command("backup", "--to", place)

    for to, why in (
        (place, "holds a whole backup already"),
        (tmp_path / "other", "holds file and is no backup"),
        (there.home.folder, "and is no backup; give a new place"),
        (here.folder / "home" / "backup", "lies in what is backed up"),
        (f"{here.home.storage.address}/backup", "lies in what is backed up"),
        ("gs://bucket/x", "is not supported"),
    ):
        result = here.command("backup", "--to", to)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert why in result.stderr


def test_a_backup_does_not_lie_in_the_files_of_mlflow(worlds: Worlds, tmp_path: Path) -> None:
    here = worlds("here")
    here.sweep("first", epochs=1)
    artifacts = tmp_path / "artifacts"

    for to in (artifacts / "backup", tmp_path / "x" / ".." / "artifacts"):
        result = here.command("backup", "--to", to, "--artifacts", artifacts)

        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert f"lies in what is backed up ({artifacts})" in result.stderr
        assert not artifacts.exists()


def files_of(world: World) -> dict[str, bytes]:
    """All files of a home, but for SQLite's own beside its databases."""
    return {
        str(file.relative_to(world.home.folder)): file.read_bytes()
        for file in world.home.folder.rglob("*")
        if file.is_file() and not file.name.endswith(("-wal", "-shm"))
    }


def test_a_restore_is_refused_by_a_home_with_other_sweeps_before_anything_is_written(
    worlds: Worlds, place: str
) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first", epochs=3)
    there.sweep("second", epochs=3)
    here.command("backup", "--to", place)
    before = files_of(there), there.everything_of("second"), there.home.storage.children("stages")

    into = there.command("restore", place)

    assert (into.returncode, into.stderr.count("\n")) == (2, 1)
    assert "has sweeps already; restore into an empty one" in into.stderr
    assert there.names == ["second"]
    after = files_of(there), there.everything_of("second"), there.home.storage.children("stages")
    assert after == before
    assert there.home.storage.children("checkpoints") == ["second"]


@pytest.mark.parametrize("kind", ["sqlite and folders"], indirect=True)
@pytest.mark.parametrize("what", ["checkpoint", "log", "mlflow"])
def test_a_restore_is_refused_by_a_home_with_other_files_before_anything_is_written(
    worlds: Worlds, place: str, mlflow_template: Path, what: str
) -> None:
    here, there = worlds("here"), worlds("there")
    view = here.sweep("first")
    shutil.copy(mlflow_template, here.home.folder / "mlflow.db")
    here.command("backup", "--to", place)
    if what == "mlflow":
        shutil.copy(mlflow_template, there.home.folder / "mlflow.db")
        MlflowClient(there.home.tracking).create_experiment("other")
    else:
        folders = [c.folder for t in view.trials for c in t.checkpoints]
        other = {"checkpoint": f"{folders[-1]}/state.bin", "log": log_file("first", 3)}[what]
        file = Path(there.home.storage.where(other))
        file.parent.mkdir(parents=True)
        file.write_text("other")
    before = files_of(there)

    into = there.command("restore", place)

    assert (into.returncode, into.stderr.count("\n")) == (2, 1)
    why = "has runs or models already" if what == "mlflow" else "is there already and not what"
    assert why in into.stderr
    assert files_of(there) == before
    assert there.names == []


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


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sqlite and folders"], indirect=True)
def test_study_and_mlflow_may_share_one_postgres_database(
    worlds: Worlds, place: str, postgres_database: str, other_postgres_database: str, kind: Kind
) -> None:
    kind.addresses = [other_postgres_database, postgres_database]
    here = worlds("here", tracking=postgres_database)
    there = worlds("there", tracking=other_postgres_database)
    here.sweep("first", epochs=5)
    ship(here.database, "first", here.home)

    made = here.command("backup", "--to", place)
    restored = there.command("restore", place)
    again = there.command("restore", place)

    assert made.returncode == 0, made.stderr
    assert (restored.returncode, again.returncode) == (0, 0), restored.stderr + again.stderr
    first = {json.loads(line)[0] for line in (Path(place) / "rows" / "study.jsonl").open()}
    second = {json.loads(line)[0] for line in (Path(place) / "rows" / "mlflow.jsonl").open()}
    assert "event" in first <= STUDY_TABLES
    assert "runs" in second - STUDY_TABLES
    assert not first & second
    assert shown_in(there) == shown_in(here)
    assert there.everything_of("first")["rows"] == here.everything_of("first")["rows"]


def shown_in(world: World) -> dict[str, Any]:
    """What MLflow has of all runs, by what they show."""
    client = MlflowClient(world.home.tracking)
    found = {}
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            steps = {
                name: [m.step for m in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            }
            found[run.info.run_name] = (run.info.run_id, run.info.status, run.data.params, steps)
    return found


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sqlite and folders"], indirect=True)
def test_mlflow_is_restored_with_its_files_from_sqlite_to_postgres_and_goes_on(
    worlds: Worlds, place: str, postgres_database: str, mlflow_template: Path
) -> None:
    here, there = worlds("here"), worlds("there", tracking=postgres_database)
    shutil.copy(mlflow_template, here.home.folder / "mlflow.db")
    here.sweep("first", epochs=5)
    ship(here.database, "first", here.home)

    made = here.command("backup", "--to", place)
    restored = there.command("restore", place)
    again = there.command("restore", place)

    assert made.returncode == 0, made.stderr
    assert (restored.returncode, again.returncode) == (0, 0), restored.stderr + again.stderr
    assert shown_in(there) == shown_in(here)
    assert there.view("first").id == here.view("first").id
    files = {f.relative_to(here.home.artifacts) for f in here.home.artifacts.rglob("*")}
    assert files
    assert files == {f.relative_to(there.home.artifacts) for f in there.home.artifacts.rglob("*")}
    for run in MlflowClient(postgres_database).search_runs(["1"]):
        assert run.info.artifact_uri.startswith(there.home.artifacts.as_uri())

    go_on(there, "first")
    ship(there.database, "first", there.home)
    kept = shown_in(there)
    for name, (run_id, *_) in shown_in(here).items():
        assert kept[name][0] == run_id, "the run goes on, no other is made"
    assert all(
        steps == sorted(set(steps)) for _, _, _, by in kept.values() for steps in by.values()
    )


def test_a_server_is_named_by_what_is_needed_of_it(worlds: Worlds, place: str) -> None:
    here = worlds("here", tracking="http://127.0.0.1:9")
    here.sweep("first", epochs=3)

    result = here.command("backup", "--to", place)

    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "is a server, and its rows are in its database; name that one" in result.stderr
    assert here.command("backup", "--to", place, "--no-tracking").returncode == 0


def test_each_help_says_what_its_artifacts_are_and_has_an_example_on_s3(worlds: Worlds) -> None:
    here = worlds("here")
    for command, says in (("backup", "files lie"), ("restore", "files go")):
        words = " ".join(here.command(command, "--help").stdout.replace("│", " ").split())
        assert f"Where MLflow's {says}" in words
        assert f"posetune {command}" in words
        assert "s3://bucket/backups/2026-11-30" in words
        assert words.count("--json") == 2, "the option, and an example"
