"""A sweep in a file: whole or not at all, and in another study as it was."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.worlds import World, go_on

from posetune.storage import Folder
from posetune.study.tables.lease import Lease
from posetune.workflow.archive import import_sweep

pytestmark = pytest.mark.slow

Worlds = Callable[[str], World]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def worlds(request: pytest.FixtureRequest, tmp_path: Path, toy_store: Path) -> Iterator[Worlds]:
    """Make the worlds `here` and `there`, on SQLite and on PostgreSQL."""
    made: list[World] = []

    def make(name: str) -> World:
        (tmp_path / name).mkdir()
        address = f"sqlite:///{tmp_path / name / 'study.db'}"
        if request.param == "postgres":
            fixture = "postgres_database" if name == "here" else "other_postgres_database"
            address = request.getfixturevalue(fixture)
        made.append(World(tmp_path / name, address, toy_store))
        return made[-1]

    yield make
    for world in made:
        world.database.close()


def archived(world: World, name: str = "first") -> Path:
    file = world.folder / f"{name}.tar"
    result = world.command("archive", name, "--to", file)
    assert result.returncode == 0, result.stderr
    return file


def test_an_imported_sweep_is_what_it_was(worlds: Worlds) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first")
    file = archived(here)
    before = here.everything_of("first")
    assert here.command("delete", "first", "--yes").returncode == 0

    result = there.command("unarchive", file, "--json")

    said = json.loads(result.stdout)
    assert (said["trials"], said["missing"]) == (4, [])
    rows, view = there.everything_of("first")["rows"], there.view("first")
    assert rows.sweep == before["rows"].sweep
    assert rows.events[:-1] == before["rows"].events
    assert "an archive that ana@laptop made" in view.remarks[-1].text
    kept = {c.folder for t in view.trials for c in t.checkpoints}
    stored = there.everything_of("first")["folders"]
    assert {f: stored[f] for f in kept} == {f: before["folders"][f] for f in kept}
    assert (here.folder / "first.tar").stat().st_mode & 0o777 == 0o600


def test_an_imported_sweep_shows_compares_and_goes_on_under_another_name(worlds: Worlds) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first", epochs=5)
    there.sweep("first", seed=7)
    file = archived(here)

    taken = there.command("unarchive", file)
    result = there.command("unarchive", file, "--name", "second")

    assert taken.returncode == 2
    assert "sweep first: is in this study already; give another --name" in taken.stderr
    assert result.returncode == 0, result.stderr
    shown = json.loads(there.command("show", "second", "--json").stdout)
    assert len(shown["trials"]) == len(here.view("first").trials)
    compared = there.command("compare", "first", "second", "--no-evaluate", "--json")
    assert compared.returncode == 0, compared.stderr
    assert go_on(there, "second") == go_on(here, "first")
    folders = [c.folder for t in there.view("second").trials for c in t.checkpoints]
    assert all(folder.startswith("checkpoints/second/") for folder in folders)


def test_a_checkpoint_that_is_lost_is_named_and_keeps_nothing_else_back(worlds: Worlds) -> None:
    here, there = worlds("here"), worlds("there")
    view = here.sweep("first")
    lost = next(c.folder for t in view.trials for c in t.checkpoints)
    here.home.storage.remove(lost)

    result = here.command("archive", "first", "--to", "first.tar", "--json")

    assert json.loads(result.stdout)["missing"] == [lost]
    again = there.command("unarchive", here.folder / "first.tar", "--json")
    assert json.loads(again.stdout)["missing"] == [lost]


def test_no_file_is_written_while_a_driver_is_at_work_or_over_another(worlds: Worlds) -> None:
    here = worlds("here")
    here.sweep("first")
    file = archived(here)
    content = file.read_bytes()
    over = here.command("archive", "first", "--to", file)
    lease = Lease(here.database, here.view("first").id, "first")
    busy = here.command("archive", "first", "--to", "busy.tar")
    lease.release()

    assert (over.returncode, busy.returncode) == (2, 2)
    assert "must be a new file in a folder that is there" in over.stderr
    assert "is being driven by process" in busy.stderr
    assert file.read_bytes() == content
    assert [p.name for p in here.folder.glob("*.tar*")] == ["first.tar"]


@contextmanager
def rewritten(file: Path, member: str, change: Callable[[bytes], bytes]) -> Iterator[Path]:
    """An archive in which one file was changed."""
    other = file.with_name("other.tar")
    with tarfile.open(file) as source, tarfile.open(other, "w") as target:
        for entry in source.getmembers():
            content = source.extractfile(entry).read()  # type: ignore[union-attr]
            if entry.name.endswith(member):
                content = change(content)
            entry.size = len(content)
            with (file.parent / "scratch").open("w+b") as scratch:
                scratch.write(content)
                scratch.seek(0)
                target.addfile(entry, scratch)
    yield other


@pytest.mark.parametrize(
    ("member", "why"),
    [
        ("events.jsonl", "events.jsonl is not what its manifest says"),
        ("sweep.json", "sweep.json is not what its manifest says"),
        ("state.bin", "is not what its manifest says"),
        ("manifest.json", "it has no manifest, or another one's"),
    ],
)
def test_a_damaged_archive_leaves_nothing_behind(worlds: Worlds, member: str, why: str) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first")

    with rewritten(archived(here), member, lambda content: content[:-2]) as file:
        result = there.command("unarchive", file)

    assert result.returncode == 2
    assert why in result.stderr
    assert result.stderr.count("\n") == 1
    assert there.names == []
    assert there.home.storage.children("checkpoints") == []


def test_half_an_archive_and_no_archive_are_one_line(worlds: Worlds) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first")
    file = archived(here)
    whole = file.read_bytes()

    for content in (whole[: len(whole) // 2], whole[:100], b"text", b""):
        file.write_bytes(content)
        result = there.command("unarchive", file)
        assert result.returncode == 2
        assert result.stderr.startswith(f"error: {file}: is no whole archive of a sweep")
    missing = there.command("unarchive", "nothing.tar")
    assert "nothing.tar: there is no such file" in missing.stderr
    assert there.names == []


def test_a_member_that_leads_out_of_its_folder_is_refused(worlds: Worlds) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first")
    file = archived(here)
    with tarfile.open(file) as source:
        manifest = json.loads(source.extractfile("manifest.json").read())  # type: ignore[union-attr]
    folder = next(iter(manifest["checkpoints"]))

    def lead_out(content: bytes) -> bytes:
        return content.replace(folder.encode(), b"checkpoints/first/../../out")

    with rewritten(file, "manifest.json", lead_out) as other:
        result = there.command("unarchive", other)

    assert result.returncode == 2
    assert there.names == []
    assert not (there.home.folder / "out").exists()


@pytest.mark.timeout(60)  # its digest took days
def test_a_member_with_holes_is_refused_before_it_is_read(worlds: Worlds) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first")
    file = archived(here)
    holes = {"major": "1", "minor": "0", "name": "x/holes", "realsize": str(10**15)}
    with tarfile.open(file, "a") as tar:
        entry = tarfile.TarInfo("x/holes")
        entry.pax_headers = {f"GNU.sparse.{key}": value for key, value in holes.items()}
        entry.size = 512
        tar.addfile(entry, io.BytesIO(b"1\n0\n0\n".ljust(512, b"\0")))
    result = there.command("unarchive", file)
    assert result.returncode == 2
    assert "x/holes has holes" in result.stderr
    assert there.names == []


class Killed(BaseException):
    """Ends a command as a kill does."""


@dataclass(frozen=True)
class Killing(Folder):
    """A storage whose user is killed in the middle of its n-th folder."""

    at: int = 0
    seen: tuple[list[str], ...] = ([],)

    @contextmanager
    def writing(self, name: str, *, last: str = "") -> Iterator[Path]:
        """Store a folder, unless it is the time."""
        self.seen[0].append(name)
        with super().writing(name, last=last) as folder:
            yield folder
            if len(self.seen[0]) == self.at:
                raise Killed


def test_an_import_that_was_killed_is_ended_by_the_same_command(worlds: Worlds) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first")
    file = archived(here)
    storage = Killing(there.home.storage.root, 2, ([],))  # type: ignore[attr-defined]
    home = there.home.model_copy(update={"storage": storage})

    with pytest.raises(Killed):
        import_sweep(there.database, home, file, by="ana@laptop")

    assert there.names == []
    result = there.command("unarchive", file)
    assert result.returncode == 0, result.stderr
    (note,) = there.everything_of("first")["rows"].events[-1:]
    assert note["kind"] == "note_added"


def test_what_lies_in_storage_and_is_anothers_stays(worlds: Worlds) -> None:
    here, there = worlds("here"), worlds("there")
    here.sweep("first")
    file = archived(here)
    strange = "checkpoints/first/00000/00001-1-deadbeef"
    there.home.storage.touch(f"{strange}/state/state.bin")

    result = there.command("unarchive", file)

    assert result.returncode == 2
    assert "is there already and not of this archive; give another --name" in result.stderr
    assert there.home.storage.exists(f"{strange}/state/state.bin")
