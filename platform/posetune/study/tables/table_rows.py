"""Writes the rows of all tables of a database as lines of text, and puts such lines into others.

Each line is a JSON array: the table's name, and the row's columns by name. The tables are those
that the database has, so nothing here knows what they mean. Rows are ordered by their keys: equal
tables give equal lines, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Sequence
from datetime import date
from itertools import groupby
from typing import Any

from sqlalchemy import JSON, Connection, MetaData, Table, insert, select, text

__all__ = [
    "Row",
    "digest_lines",
    "empty_tables",
    "line_of",
    "put_rows",
    "read_lines",
    "row_of",
    "tables_of",
]

CHUNK = 1_000
"""Number of rows that are read or written at a time."""
_BYTES, _DATE = "$bytes", "$date"
"""Keys of what JSON has no word for."""

Row = dict[str, Any]
"""The columns of a row, by name."""


def tables_of(connection: Connection, *, but: Container[str]) -> list[Table]:
    """Return the tables of a database, each behind those that it refers to.

    Args:
        connection: the database.
        but: names of tables to leave out.
    """
    metadata = MetaData()
    metadata.reflect(connection)
    for table in metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type.none_as_null = True  # no value is NULL here, never a JSON null
    return [table for table in metadata.sorted_tables if table.name not in but]


def read_lines(connection: Connection, tables: Iterable[Table]) -> Iterator[str]:
    """Yield the rows of tables, a line each.

    Args:
        connection: a consistent view of the database.
        tables: as `tables_of` gives them.
    """
    for table in tables:
        query = select(table).order_by(*(table.primary_key.columns or table.columns))
        rows = connection.execute(query, execution_options={"yield_per": CHUNK}).mappings()
        for row in rows:
            yield line_of(table.name, dict(row))


def line_of(table: str, row: Row) -> str:
    """Return the line of a row."""
    return json.dumps([table, row], default=_encode) + "\n"


def row_of(line: str) -> tuple[str, Row]:
    """Return the table and the row of a line.

    Raises:
        ValueError: it is no such line.
    """
    name, row = json.loads(line)
    if not isinstance(name, str) or not isinstance(row, dict):
        raise ValueError(f"no row of a table: {line[:80]!r}")
    return name, {column: _decode(value) for column, value in row.items()}


def digest_lines(lines: Iterable[str]) -> int:
    """Return a digest of lines that does not depend on their order.

    Two databases may order the same texts in two ways.
    """
    digests = (hashlib.sha256(line.encode()).digest() for line in lines)
    return sum(int.from_bytes(digest, "big") for digest in digests)


def put_rows(
    connection: Connection, tables: Sequence[Table], rows: Iterable[tuple[str, Row]]
) -> None:
    """Put rows into empty tables, in a transaction.

    Args:
        connection: the transaction.
        tables: the tables of this database.
        rows: the rows of each table together, in the order in which `read_lines` gives them.

    Raises:
        ValueError: there is no table of that name, or none with these columns.
    """
    known = {table.name: table for table in tables}
    for name, group in groupby(rows, key=lambda row: row[0]):
        table = known.get(name)
        if table is None:
            raise ValueError(f"there is no table {name} here")
        _insert(connection, table, (row for _, row in group))
    _go_on_counting(connection, tables)


def empty_tables(connection: Connection, tables: Sequence[Table]) -> None:
    """Delete all rows of tables, in a transaction."""
    for table in reversed(tables):
        connection.execute(table.delete())


def _insert(connection: Connection, table: Table, rows: Iterator[Row]) -> None:
    for chunk in _chunks(rows):
        unknown = set(chunk[0]) - set(table.columns.keys())
        if unknown:
            raise ValueError(f"table {table.name} has no column {sorted(unknown)[0]} here")
        connection.execute(insert(table), chunk)


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _go_on_counting(connection: Connection, tables: Sequence[Table]) -> None:
    """Let PostgreSQL number new rows behind those that were put; SQLite does so by itself."""
    if connection.engine.name != "postgresql":
        return
    for table in tables:
        for column in table.primary_key.columns:
            where = {"table": f'"{table.name}"', "column": column.name}
            find = text("SELECT pg_get_serial_sequence(:table, :column)")
            sequence = connection.execute(find, where).scalar()
            last = connection.execute(select(column).order_by(column.desc()).limit(1)).scalar()
            if sequence is not None and last is not None:
                follow = text("SELECT setval(CAST(:sequence AS regclass), :last)")
                connection.execute(follow, {"sequence": sequence, "last": last})


def _encode(value: Any) -> Any:
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode()}
    if isinstance(value, date):
        return {_DATE: value.isoformat()}
    raise TypeError(f"no value of a row: {value!r}")


def _decode(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {_BYTES}:
        return base64.b64decode(value[_BYTES])
    if isinstance(value, dict) and value.keys() == {_DATE}:
        return date.fromisoformat(value[_DATE])
    return value
