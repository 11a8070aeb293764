"""How often a test split was looked at: each look makes the next result a little less honest.

Openings are counted per data digest, whatever model or sweep they were for.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection, func, insert, inspect, select

from posetune.study import schema
from posetune.study.database import Database

__all__ = ["count_openings", "record_opening"]


def record_opening(database: Database, store_digest: str, *, why: str, model: str) -> int:
    """Record that the test split of a store is opened, before it is; return how often it was.

    Args:
        database: the study.
        store_digest: of the data.
        why: the command.
        model: what is evaluated.
    """

    def write(connection: Connection) -> int:
        # A study of an earlier posetune has no such table yet.
        schema.opening.create(connection, checkfirst=True)
        row: dict[str, Any] = {"store_digest": store_digest, "at": time.time()}
        connection.execute(insert(schema.opening).values(**row, why=why, model=model))
        return _count(connection, store_digest)

    return database.write(write)


def count_openings(database: Database, store_digest: str) -> int:
    """Return how often the test split of a store was opened."""
    with database.reading() as connection:
        if not inspect(connection).has_table(schema.opening.name):
            return 0
        return _count(connection, store_digest)


def _count(connection: Connection, store_digest: str) -> int:
    table = schema.opening
    query = select(func.count()).where(table.c.store_digest == store_digest)
    return int(connection.execute(query).scalar_one())
