"""Names that become folders' leave none; of the addresses, what was given travels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from posetune.api import BadInputError
from posetune.cli.app import app
from posetune.home import Home, check_name
from posetune.study.tables.database import open_database

ESCAPES = ["../../escape", "/tmp/escape", "a/../../escape", "..", "a..b", ".a", "a\nb", "a\0", ""]


@pytest.mark.parametrize("name", ESCAPES)
def test_a_name_that_could_leave_its_folder_is_none(name: str) -> None:
    with pytest.raises(BadInputError, match="a sweep's name takes"):
        check_name(name)


@pytest.mark.parametrize(
    "command",
    [
        "sweep FILE --name NAME",
        "submit FILE --address http://127.0.0.1:9 --name NAME",
        "train FILE --name NAME",
        "show NAME",
        "logs NAME",
        "stop NAME",
        "track NAME",
        "report NAME --out report.html",
        "promote NAME --model m",
        "reproduce NAME/0",
        "export-study NAME --to sqlite:///study.db",
    ],
)
def test_no_command_writes_anything_for_such_a_name(
    toy_sweep: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    open_database(f"sqlite:///{home / 'study.db'}").close()
    for name in ("POSETUNE_DATABASE", "POSETUNE_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("POSETUNE_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    known = {"FILE": str(toy_sweep()), "NAME": "../escape", "NAME/0": "../escape/0"}
    before = set(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, [known.get(word, word) for word in command.split()])
    assert isinstance(result.exception, BadInputError), result.exception
    after = {p for p in tmp_path.rglob("*") if not p.name.startswith("study.db-")}
    assert after <= before


@pytest.mark.parametrize("name", ["POSETUNE_DATABASE", "MLFLOW_TRACKING_URI"])
@pytest.mark.parametrize(
    "address",
    [
        "postgresql+psycopg://[::1/x",
        "postgresql://me:planted@host:abc/x",
        "postgresql://me:planted@host:99999999/x",
        "http://[::1",
        "\x1b]0;title\x07",
    ],
)
def test_an_address_that_cannot_be_read_is_refused_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, address: str
) -> None:
    monkeypatch.setenv(name, address)
    with pytest.raises(BadInputError, match=f"^{name}: cannot be read as an address[^\n]*$") as at:
        Home.resolve(tmp_path)
    assert "planted" not in str(at.value)


@pytest.mark.parametrize("password", ["a#b", "a/b", "a?b", "x+/y=="])
def test_a_password_of_a_database_may_hold_any_character(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv("POSETUNE_DATABASE", f"postgresql://me:{password}@host:5432/study")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:{password}@host:5432/mlflow")
    home = Home.resolve(tmp_path)
    assert make_url(home.database).password == password
    assert make_url(home.tracking).password == password


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///:memory:", "sqlite:///?mode=memory"])
def test_a_study_in_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("POSETUNE_DATABASE", address)
    with pytest.raises(BadInputError, match="a study in memory ends with its process"):
        Home.resolve(tmp_path)


def test_only_addresses_that_were_given_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POSETUNE_DATABASE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("POSETUNE_STORAGE", "/shared/storage")
    home = Home.resolve(tmp_path)
    assert home.environment == {
        "POSETUNE_HOME": str(tmp_path),
        "POSETUNE_STORAGE": "/shared/storage",
    }


def test_a_home_that_was_not_given_gives_way_to_the_clusters_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("POSETUNE_HOME", "POSETUNE_DATABASE", "POSETUNE_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    sent = Home.resolve().environment
    assert list(sent.values()) == [str(tmp_path / "runs")]
    for name, value in sent.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path / "job")
    assert Home.resolve().folder == tmp_path / "runs"
    monkeypatch.setenv("POSETUNE_HOME", "/shared/runs")
    assert Home.resolve().folder == Path("/shared/runs")
