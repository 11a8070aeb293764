"""Two users of one machine share a PostgreSQL study: one trains and promotes, the other agrees."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from sqlalchemy import make_url
from support.other_user import run_as

OWNER, NOBODY = 54321, 65534
"""The owner has no name on the machine, as in many containers."""
HOST = socket.gethostname()
RULE = "registry: {champion: {approve: 1}}\n"
SWEEP = """\
trainable: posetune.testing.toy:Toy
objective: {metric: val/error_mm, mode: min}
search: {x: {float: [0.1, 1.0]}}
fixed: {epoch_s: 0.0}
sampler: {name: random}
pruner: {name: none, max_epochs: 2}
budget: {trials: 2}
"""


class User:
    """One of the two, with a home of their own."""

    def __init__(self, uid: int, folder: Path, environment: dict[str, str]) -> None:
        self.uid, self.folder, self.environment = uid, folder, environment
        (folder / "home").mkdir(parents=True)
        (folder / "home" / "posetune.yaml").write_text(RULE)
        shutil.chown(folder / "home", uid, uid)

    def gives(self, *commands: tuple[object, ...]) -> list[subprocess.CompletedProcess[str]]:
        return run_as(self.uid, commands, folder=self.folder, environment=self.environment)

    def does(self, *commands: tuple[object, ...]) -> list[dict[str, Any]]:
        """Give commands; return what each says as JSON."""
        done = self.gives(*[(*words, "--json") for words in commands])
        for one in done:
            assert one.returncode == 0, (one.args, one.stderr)
        return [json.loads(one.stdout) for one in done]


def open_to_others(folder: Path) -> None:
    """What the owner of a home does who shares it."""
    for place in (folder, *folder.rglob("*")):
        if not place.is_symlink():
            place.chmod(0o777 if place.is_dir() else 0o666)


@pytest.mark.long
@pytest.mark.ray
def test_one_trains_and_promotes_and_the_other_sees_acts_and_agrees(
    shared: Path, toy_store: Path, postgres_database: str, other_postgres_database: str
) -> None:
    sockets = make_url(postgres_database).query["host"]
    assert isinstance(sockets, str)
    Path(sockets).chmod(0o711)
    store = Path(shutil.copytree(toy_store, shared / "store"))
    storage = shared / "storage"
    storage.mkdir()
    environment = {
        "POSETUNE_DATABASE": postgres_database,
        "POSETUNE_STORAGE": str(storage),
        "MLFLOW_TRACKING_URI": other_postgres_database,
    }
    owner = User(OWNER, shared / "owner", environment)
    colleague = User(NOBODY, shared / "colleague", environment)
    open_to_others(store)
    open_to_others(storage)
    file = owner.folder / "toy.yaml"
    file.write_text(SWEEP)
    owners_name, colleagues_name = f"{OWNER}@{HOST}", f"nobody@{HOST}"

    (swept,) = owner.gives(("sweep", file, "--name", "toys", "--store", store))
    assert swept.returncode == 0, swept.stderr
    open_to_others(storage)

    listed, others, shown, usage, *_ = colleague.does(
        ("list", "--owner", str(OWNER)),
        ("list", "--owner", "nobody"),
        ("show", "toys"),
        ("usage", "--by", "owner"),
        ("note", "toys/0", "looks right"),
        ("trial", "extend", "toys", 1, "--epochs", 3),
    )
    assert [(one["name"], one["owner"]) for one in listed["sweeps"]] == [("toys", owners_name)]
    assert others["sweeps"] == []
    assert (shown["owner"], shown["state"]) == (owners_name, "COMPLETE")
    assert [group["name"] for group in usage["groups"]] == [str(OWNER)]

    promoted, own = owner.gives(
        ("promote", "toys", "--model", "toy", "--alias", "champion", "--force", "--reason", "x"),
        ("approve", "toy/1"),
    )
    assert promoted.returncode == 0, promoted.stderr
    assert own.returncode == 2
    assert f"you are {OWNER}, and {owners_name} said yes already" in own.stderr
    open_to_others(owner.folder)
    open_to_others(storage)
    agreed, now = colleague.does(("approve", "toy/1"), ("show", "toys"))

    assert (agreed["promoted_by"], agreed["approved_by"]) == (owners_name, [colleagues_name])
    notes = [note for trial in now["trials"] for note in trial["notes"]]
    assert {note["by"] for note in notes} == {owners_name, colleagues_name}
    assert any("waits for approval" in note["text"] for note in notes)
    assert any(f"what {owners_name} promoted" in note["text"] for note in notes)
    assert now["waiting_requests"][0]["by"] == colleagues_name
    version = MlflowClient(other_postgres_database).get_model_version_by_alias("toy", "champion")
    assert version.tags["posetune.promoted_by.champion"].startswith(owners_name)
    assert version.tags["posetune.approved_by.champion"] == colleagues_name
