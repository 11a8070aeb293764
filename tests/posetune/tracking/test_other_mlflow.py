"""A store that another MLflow wrote: which one, and the command that helps."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config

from posetune.api import BadInputError
from posetune.home import Home
from posetune.tracking.server.connection import connect


def write_migration(home: Path, migration: str) -> None:
    with closing(sqlite3.connect(home / "mlflow.db")) as store, store:
        store.execute("UPDATE alembic_version SET version_num = ?", (migration,))


def migration_before() -> str:
    scripts = ScriptDirectory.from_config(_get_alembic_config(db_url=""))
    head = scripts.get_current_head()
    return str(scripts.get_revision(head).down_revision)


@pytest.mark.parametrize(
    ("is_newer", "words"),
    [
        (False, ["has the tables of an older MLflow", "mlflow db upgrade sqlite:///"]),
        (True, ["has the tables of a newer MLflow", "pip install --upgrade mlflow"]),
    ],
)
def test_a_store_of_another_mlflow_names_the_remedy(
    migrated_home: Path, is_newer: bool, words: list[str]
) -> None:
    migration = "f" * 12 if is_newer else migration_before()
    write_migration(migrated_home, migration)
    with pytest.raises(BadInputError) as refused:
        connect(Home.resolve(migrated_home))
    for word in [*words, migration, "mlflow.db"]:
        assert word in str(refused.value)
    assert ("db upgrade" in str(refused.value)) is not is_newer
    assert "\n" not in str(refused.value)


def test_a_store_that_we_make_is_its_owners_alone(mlflow_template: Path) -> None:
    assert stat.S_IMODE(mlflow_template.stat().st_mode) == 0o600


@pytest.mark.slow
def test_check_says_so_before_a_sweep(
    migrated_home: Path,
    toy_sweep: Callable[..., Path],
    posetune: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    write_migration(migrated_home, "f" * 12)
    checked = posetune("check", toy_sweep(trials=2))
    assert checked.returncode == 0
    assert "tables of a newer MLflow" in " ".join(checked.stderr.split())
