"""What happened to a sweep, event by event, as lines for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, Table, select

from posetune.study import schema
from posetune.study.database import Database
from posetune.study.journal import SET_ASIDE

__all__ = ["Happening", "read_history"]


@dataclass(frozen=True)
class Happening:
    """One event."""

    at: float
    """Seconds since the epoch."""
    trial: int | None
    """None for one of the sweep as a whole."""
    text: str


def read_history(
    database: Database, sweep_id: int, *, trial: int | None = None, after: float = 0.0
) -> list[Happening]:
    """Return the events of a sweep, or of one of its trials, later than `after`, in order."""
    with database.reading() as connection:
        found = [
            Happening(event["at"], event.get("trial_number"), text)
            for table, describe in _TABLES.items()
            for event in _rows(connection, table, sweep_id, after)
            if (text := describe(event))
        ]
    wanted = (h for h in found if trial is None or h.trial == trial)
    return sorted(wanted, key=lambda happening: happening.at)


def _rows(
    connection: Connection, table: Table, sweep_id: int, after: float
) -> Iterator[RowMapping]:
    owner = schema.trial
    number = owner.c.number.label("trial_number")
    if table is schema.sweep_event:
        query = select(table).where(table.c.sweep_id == sweep_id)
    elif table is owner:
        query = select(table, number).where(table.c.sweep_id == sweep_id)
    else:
        query = select(table, number).join(owner, owner.c.id == table.c.trial_id)
        query = query.where(owner.c.sweep_id == sweep_id)
    yield from connection.execute(query.where(table.c.at > after).order_by(table.c.at)).mappings()


def _of_sweep(row: RowMapping) -> str:
    data = row["data"]
    if row["kind"] == "stopped":
        return f"the driver stopped: {data.get('reason')}"
    if row["kind"] == SET_ASIDE:
        return f"trial {data['trial']} is set aside: the budget has no room for it now"
    if row["kind"] == "started":
        commit = (data.get("commit") or {}).get("commit") or "unknown"
        return f"a driver started, with code {commit[:12]}"
    if row["kind"] == "waits":
        return data["for"] or "no trial waits any more"
    if row["kind"] in ("share", "peak"):
        return _of_memory(row["kind"], data)
    if row["kind"] == "excused":
        return f"attempt {data['attempt']} of trial {data['trial']} does not count: {data['why']}"
    return f"{row['kind']}: " + ", ".join(f"{k} {v:.2f}" for k, v in data.items())


def _of_memory(kind: str, data: dict[str, float]) -> str:
    peak = f"{data['peak_bytes'] / 1e9:.2f} GB"
    if kind == "peak":
        return f"trial {data['trial']} has taken {peak} of its GPU, more than was measured before"
    of = f"{peak} of {data['total_bytes'] / 1e9:.2f} GB"
    return f"a step of the largest configuration took {of}: a trial gets gpu {data['gpu']}"


def _of_report(row: RowMapping) -> str:
    value = "not a number" if row["value"] is None else f"{row['value']:.4g}"
    return f"epoch {row['epoch']}: {value} after {row['seconds']:.1f} s; {row['decision']}"


def _of_checkpoint(row: RowMapping) -> str:
    if row["partial_s"] is None:
        return ""  # every report has one
    return f"handed over within epoch {row['epoch'] + 1}, after {row['partial_s']:.1f} s of it"


def _of_placement(row: RowMapping) -> str:
    facts = row["facts"]
    where = f"{facts.get('node')} ({facts.get('device')}, {facts.get('threads')} threads)"
    return f"attempt {row['attempt']} trains on {where}"


_TABLES: dict[Table, Callable[[RowMapping], str]] = {
    schema.sweep_event: _of_sweep,
    schema.trial: lambda row: "asked: " + ", ".join(f"{k}={v}" for k, v in row["params"].items()),
    schema.attempt: lambda row: f"attempt {row['number']} begins after epoch {row['from_epoch']}",
    schema.placement: _of_placement,
    schema.stage_use: lambda row: (
        f"stage {row['stage']} {row['key'][:8]}: {'trained' if row['trained'] else 'found'}"
    ),
    schema.report: _of_report,
    schema.checkpoint: _of_checkpoint,
    schema.told: lambda row: f"{row['state']}: {row['reason']}",
}
