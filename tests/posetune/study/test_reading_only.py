"""A study is read without the right to write; what is made is its owner's alone."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.simulated_driver import drive
from support.simulated_driver import simulated_start as opening

from posetune.home import Home, sqlite_address
from posetune.study.driving.sweep import SweepRun
from posetune.study.reading import read_sweep
from posetune.study.tables.database import open_database

NOBODY = 65534

READ = """
import encodings.ascii, os, sys
from posetune.api import BadInputError
from posetune.home import sqlite_address
from posetune.study.tables.database import open_database
from posetune.study.reading import read_sweep
from pathlib import Path
from sqlalchemy import create_engine
create_engine("sqlite://").connect().close()  # nobody may not read what Python still imports
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
database = open_database(sqlite_address(Path(sys.argv[1])), create=False)
view = read_sweep(database, "s")
print(len(view.trials), view.state)
try:
    database.write(lambda connection: None)
except BadInputError as error:
    print(error)
"""

WRITE_AND_DIE = """
import os, signal, sys
from support.simulated_driver import simulated_start
from posetune.study.driving.sweep import SweepRun
from posetune.study.tables.database import open_database
run = SweepRun(open_database(sys.argv[1]), simulated_start())
run.next_trial()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def colleagues_home() -> Iterator[Path]:
    """A folder that everybody may read, with another for its path to be odd."""
    with tempfile.TemporaryDirectory(prefix="posetune-") as made:
        home = Path(made) / "what? 50%25 #1"
        home.mkdir()
        Path(made).chmod(0o755)
        yield home
        home.chmod(0o755)


def as_colleague(home: Path) -> list[str]:
    """Read the study as somebody who may not write to it; return what was found and refused."""
    for file in home.iterdir():
        file.chmod(0o444)
    home.chmod(0o555)
    command = [sys.executable, "-c", READ, str(home / "study.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("state", ["ended", "at work", "killed"])
def test_a_study_is_read_in_a_home_that_cannot_be_written_to(
    colleagues_home: Path, state: str
) -> None:
    address = sqlite_address(colleagues_home / "study.db")
    if state == "killed":
        support = str(Path(__file__).parents[2])
        command = [sys.executable, "-c", WRITE_AND_DIE, address]
        environment = {**os.environ, "PYTHONPATH": support}
        killed = subprocess.run(command, env=environment, timeout=120)
        assert killed.returncode == -signal.SIGKILL
        expected = "1 INTERRUPTED"
    else:
        database = open_database(address)
        if state == "ended":
            drive(database, opening())
            database.close()
            expected = "14 COMPLETE"
        else:
            run = SweepRun(database, opening())
            run.next_trial()
            expected = "1 RUNNING"
    before = {file.name for file in colleagues_home.iterdir()}
    found, refused = as_colleague(colleagues_home)
    assert found == expected
    assert "you may read it and not write to it" in refused
    assert "what? 50" in refused or "what%3F" in refused
    assert {file.name for file in colleagues_home.iterdir()} == before
    if state == "at work":
        run.lease.release()
        database.close()


def test_a_new_home_and_its_databases_are_their_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("POSETUNE_DATABASE", "POSETUNE_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    before = os.umask(0o022)
    try:
        home = Home.resolve(tmp_path / "below" / "home").prepare()
        database = open_database(home.database)
        run = SweepRun(database, opening())
    finally:
        os.umask(before)
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    files = sorted(home.folder.glob("study.db*"))
    assert len(files) == 3  # with the log of what is being written
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    run.lease.release()
    database.close()


def test_a_home_that_was_opened_to_others_stays_so(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "home").chmod(0o755)
    home = Home.resolve(tmp_path / "home").prepare()
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ["what?", "50%25 off", "#1", "a&b=c", "%zz", "é ü"])
def test_a_database_lies_where_its_path_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("POSETUNE_DATABASE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    home = Home.resolve(tmp_path / name).prepare()
    database = open_database(home.database)
    SweepRun(database, opening()).lease.release()
    database.close()
    assert (tmp_path / name / "study.db").stat().st_size > 0
    assert [folder.name for folder in tmp_path.iterdir()] == [name]
    again = open_database(home.database, create=False)
    assert read_sweep(again, "s").name == "s"
    monkeypatch.setenv("POSETUNE_DATABASE", str(tmp_path / name / "study.db"))
    assert Home.resolve(tmp_path).database == home.database
