"""Lets the tracking store of a home that was moved find its own files again.

MLflow writes the absolute address of its artefacts into the rows of experiments, runs, models and
versions. After a home was moved, those would still lead to the old place, which is gone, or worse,
is somebody else's. A store in a home is that home's own, so its rows are put right.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from posetune.home import Home

__all__ = ["ADDRESSES", "follow_move"]

ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns in which MLflow keeps addresses of artefacts."""
_OURS = "SELECT DISTINCT artifact_location FROM experiments WHERE name LIKE 'posetune/%'"


def follow_move(store: Path, home: Home) -> bool:
    """Correct the addresses in a home's own store if the home lies elsewhere now.

    The caller sees to it that no other process does so at the same time.

    Args:
        store: the SQLite file.
        home: the home as it lies now.

    Returns:
        Whether anything was corrected.
    """
    here = home.artifacts.as_uri()
    if store.parent != home.folder or not _elsewhere(store, here):
        return False
    with _opened(store) as connection, connection:  # one transaction
        for old in _old_roots(connection, here):
            for table, column in ADDRESSES:
                # Table and column are constants; addresses are bound.
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (here, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )
    return True


def _elsewhere(store: Path, here: str) -> bool:
    try:
        with _opened(store) as connection:
            return bool(_old_roots(connection, here))
    except sqlite3.DatabaseError:  # it is no store of MLflow's, or damaged: MLflow will say so
        return False


def _old_roots(connection: sqlite3.Connection, here: str) -> list[str]:
    """Return the folders of artefacts of homes in which the store lay before."""
    found = [str(row[0]) for row in connection.execute(_OURS)]
    name = here.rpartition("/")[2]
    return [old for old in found if old != here and old.rpartition("/")[2] == name]


def _opened(store: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(store, timeout=60.0))
