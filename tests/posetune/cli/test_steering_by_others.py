"""A colleague steers a sweep: another user, with another home, who reaches the same study."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url
from support.other_user import run_as
from support.simulated_driver import happened
from support.steered import SWEEP_FILE, Steered

from posetune.home import sqlite_address
from posetune.study import act_events
from posetune.study.events import SEMANTICS
from posetune.study.reading import read_sweep
from posetune.study.tables import schema

NOBODY = 65534
NAMELESS = 54321
"""A user without a name, as in many containers."""

pytestmark = pytest.mark.slow


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def steered(request: pytest.FixtureRequest, shared: Path, toy_store: Path) -> Iterator[Steered]:
    """The sweep of the owner, whose study others may write to."""
    folder = shared / "owner"
    folder.mkdir()
    address = sqlite_address(folder / "study.db")
    if request.param == "postgres":
        address = request.getfixturevalue("postgres_database")
        sockets = make_url(address).query["host"]
        assert isinstance(sockets, str)
        Path(sockets).chmod(0o711)
    steered = Steered(folder, toy_store, address)
    sweep = steered.drive()
    sweep.train()
    sweep.train(epochs=2)
    sweep.run.lease.release()
    open_to_others(folder)
    yield steered
    steered.database.close()


def open_to_others(folder: Path) -> None:
    """What the owner of a home does who shares it."""
    folder.chmod(0o777)
    for file in folder.iterdir():
        file.chmod(0o777 if file.is_dir() else 0o666)


class Colleague:
    """Another user with a home of their own."""

    def __init__(self, uid: int, folder: Path, address: str) -> None:
        self.uid, self.folder = uid, folder
        folder.mkdir()
        self.environment = {"POSETUNE_DATABASE": address}

    @property
    def name(self) -> str:
        return f"{'nobody' if self.uid == NOBODY else self.uid}@{socket.gethostname()}"

    def does(self, *commands: tuple[object, ...]) -> list[dict[str, Any]]:
        """Give commands; return what each says as JSON."""
        asked = [(*words, "--json") for words in commands]
        done = run_as(self.uid, asked, folder=self.folder, environment=self.environment)
        for one in done:
            assert one.returncode == 0, (one.args, one.stderr)
        return [json.loads(one.stdout) for one in done]


def actors(steered: Steered) -> dict[str, str]:
    """Who caused each kind of event."""
    found = happened(steered.database, act_events.ActEvent, "curve")
    return {type(event).__name__: event.by for event in found}


def test_a_colleague_sees_what_the_owner_holds_and_cleans_nothing_of_it(
    steered: Steered, shared: Path
) -> None:
    colleague = Colleague(NOBODY, shared / "colleague", steered.address)
    home = colleague.folder / "home"
    home.mkdir()
    (home / "posetune.yaml").write_text("retention: {older_than: 1d, keep: []}\n")
    home.chmod(0o777)
    table, begun = schema.event, {"semantics": SEMANTICS, "by": "ana@laptop"}
    with steered.database.engine.begin() as connection:
        connection.execute(table.update().where(table.c.seq == 1).values(data=begun))
    with steered.driver_at_work():
        queue, usage = colleague.does(("queue",), ("usage", "--by", "owner"))
    with steered.database.engine.begin() as connection:
        connection.execute(table.update().values(at=table.c.at - 3 * 86_400))
    (cleaned,) = colleague.does(("clean", "--yes"))

    (held,) = queue["sweeps"]
    assert (held["sweep"], held["owner"]) == ("curve", "ana@laptop")
    assert [group["name"] for group in usage["groups"]] == ["ana"]
    assert cleaned["deleted"] == []
    (kept,) = cleaned["sweeps"]
    assert kept["kept"] == "it is ana's (--everybody takes it, too)"


@pytest.mark.parametrize("uid", [NOBODY, pytest.param(NAMELESS, marks=pytest.mark.long)])
def test_a_colleague_steers_a_running_sweep(steered: Steered, shared: Path, uid: int) -> None:
    colleague = Colleague(uid, shared / "colleague", steered.address)
    file = colleague.folder / "edited.yaml"
    file.write_text(SWEEP_FILE.format(store=steered.store, trials=7))
    with steered.driver_at_work() as sweep:
        said = colleague.does(
            ("trial", "pin", "curve", 1),
            ("trial", "stop", "curve", 1),
            ("trial", "retry", "curve", 1),
            ("trial", "extend", "curve", 0, "--epochs", 11),
            ("enqueue", "curve", "--set", "x=0.25"),
            ("hold", "curve"),
            ("release", "curve"),
            ("edit", "curve", file),
            ("note", "curve/1", "flat from epoch 5 on"),
            ("tag", "curve", "paper=figure-3"),
            ("show", "curve"),
        )
        assert all(one["event"] for one in said[:-1])
        assert {one["by"] for one in said[:-1]} == {colleague.name}
        assert sweep.run.trials[1].remarks[0].by == colleague.name
        assert sweep.run.spec.budget.trials == 7
    kinds = {kind.__name__ for kind in act_events.ActEvent.__args__}
    assert actors(steered) == dict.fromkeys(kinds, colleague.name)
    assert said[-1]["tags"] == {"paper": "figure-3"}
    assert not (colleague.folder / "home").exists(), "a home is made by who runs something in it"


def test_a_colleague_steers_a_resting_sweep_and_its_owner_goes_on(
    steered: Steered, shared: Path
) -> None:
    colleague = Colleague(NOBODY, shared / "colleague", steered.address)
    said = colleague.does(
        ("trial", "stop", "curve", 1),
        ("trial", "retry", "curve", 1),
        ("trial", "extend", "curve", 0, "--epochs", 11),
        ("enqueue", "curve", "--set", "x=0.25"),
        ("note", "curve", "at once"),
    )
    assert [one["waits"] for one in said] == [False, True, True, True, False]
    sweep = steered.drive()
    assert not read_sweep(steered.database, "curve").waiting_requests
    assert sweep.run.trials[0].extended_to == 11
    sweep.train()
    sweep.run.lease.release()
    assert set(actors(steered).values()) == {colleague.name}
    (shown,) = colleague.does(("show", "curve"))
    assert shown["notes"][0]["by"] == colleague.name
    if steered.address.startswith("sqlite"):
        files = sorted(Path(steered.folder).glob("study.db*"))
        assert {file.stat().st_mode & 0o777 for file in files} == {0o666}


def test_who_may_not_use_a_study_is_told_so_in_a_line(shared: Path, toy_store: Path) -> None:
    folder = shared / "owner"
    folder.mkdir()
    steered = Steered(folder, toy_store, sqlite_address(folder / "study.db"))
    sweep = steered.drive()
    sweep.train(epochs=1)
    sweep.run.lease.release()
    steered.database.close()
    file = folder / "study.db"
    colleague = Colleague(NOBODY, shared / "colleague", steered.address)
    for mode, inside, why in [
        (0o755, 0o644, "you may read it and not write to it"),
        (0o755, 0o600, f"you may not read {file}"),
        (0o700, 0o600, f"you may not read {folder}"),
    ]:
        folder.chmod(mode)
        file.chmod(inside)
        (done,) = run_as(
            NOBODY,
            [("note", "curve", "text")],
            folder=colleague.folder,
            environment=colleague.environment,
        )
        assert done.returncode == 2, done.stderr
        assert why in " ".join(done.stderr.split())
        assert "ask its owner" in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
