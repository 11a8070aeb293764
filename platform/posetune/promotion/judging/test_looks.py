"""Counts how often a test split was opened: each look makes the next result a little less honest.

The looks are counted by the digest of the data, whatever model or sweep they were for.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection, func, insert, inspect, select

from posetune.study.tables import schema
from posetune.study.tables.database import Database

__all__ = ["count_test_looks", "record_test_look"]


def record_test_look(database: Database, store_digest: str, *, why: str, model: str) -> int:
    """Record that the test split of a store will be opened; call it before the split is read.

    Args:
        database: the study.
        store_digest: digest of the data.
        why: what the split is opened for, e.g. `promote to champion`.
        model: name of the model that is evaluated.

    Returns:
        How often the split was opened, this time included.
    """

    def write(connection: Connection) -> int:
        # A study that an earlier posetune made does not have this table.
        schema.opening.create(connection, checkfirst=True)
        row: dict[str, Any] = {"store_digest": store_digest, "at": time.time()}
        connection.execute(insert(schema.opening).values(**row, why=why, model=model))
        return _count(connection, store_digest)

    return database.write(write)


def count_test_looks(database: Database, store_digest: str) -> int:
    """Return how often the test split of a store was opened."""
    with database.reading() as connection:
        if not inspect(connection).has_table(schema.opening.name):
            return 0
        return _count(connection, store_digest)


def _count(connection: Connection, store_digest: str) -> int:
    table = schema.opening
    query = select(func.count()).where(table.c.store_digest == store_digest)
    return int(connection.execute(query).scalar_one())
