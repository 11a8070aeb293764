"""Prints the table of events of docs/architecture.md, made from the classes themselves."""

from __future__ import annotations

import dataclasses

from posetune.study.events import Event
from posetune.study.tables.event_rows import kind_of

__all__ = ["events_table"]


def events_table() -> str:
    """Return the events in their order: name in the database, what happened, what they hold."""
    rows = ["| event | what happened | what it holds |", "|---|---|---|"]
    for cls in Event.__args__:
        happened = (cls.__doc__ or "").splitlines()[0]
        names = [field.name for field in dataclasses.fields(cls) if field.name != "at"]
        rows.append(f"| `{kind_of(cls)}` | {happened} | {', '.join(names) or '-'} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(events_table())
