"""Reads and appends the events of one sweep: plain functions over a connection.

Nothing is decided here; `sweep` decides and calls these inside its transactions.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, func, insert, select, true

from posetune.study import schema
from posetune.study.budget import Holding
from posetune.study.records import CheckpointRecord, Report, TrialRecord

__all__ = [
    "SET_ASIDE",
    "SHARE",
    "append",
    "find_sweep",
    "read_budget",
    "read_driven_seconds",
    "read_lives",
    "read_metrics",
    "read_once",
    "read_reports",
    "read_share",
    "read_stage_keys",
    "read_tracked",
    "read_trials",
    "record_tracked",
]


SHARE = "share"
"""The kind of the event that says which part of a GPU a trial takes, where trials share them."""

SET_ASIDE = "set_aside"
"""The kind of the event that an attempt was ended by the budget, its trial staying open."""


def append(connection: Connection, table: Any, values: Mapping[str, Any]) -> int:
    """Append one event and return its id; it happens now unless `at` says when."""
    result = connection.execute(insert(table).values({"at": time.time(), **values}))
    key = result.inserted_primary_key
    return int(key[0]) if key else 0


def find_sweep(connection: Connection, name: str) -> RowMapping | None:
    """Return the sweep's row, or None."""
    query = select(schema.sweep).where(schema.sweep.c.name == name)
    return connection.execute(query).mappings().one_or_none()


def read_budget(connection: Connection, sweep: Mapping[str, Any]) -> dict[str, Any]:
    """Return the budget that the sweep was last started with: it may have grown."""
    event = schema.sweep_event
    query = select(event.c.data).where(event.c.sweep_id == sweep["id"], event.c.kind == "started")
    started = connection.execute(query.order_by(event.c.id.desc()).limit(1)).scalar()
    return dict((started or {}).get("budget") or sweep["spec"]["budget"])


def read_share(connection: Connection, sweep_id: int) -> dict[str, Any]:
    """Return the part of a GPU that a trial takes and what was measured; empty before."""
    event = schema.sweep_event
    query = select(event.c.data).where(event.c.sweep_id == sweep_id, event.c.kind == SHARE)
    return dict(connection.execute(query.order_by(event.c.id.desc()).limit(1)).scalar() or {})


def read_reports(connection: Connection, sweep_id: int) -> list[Report]:
    """Return all reports in order of arrival."""
    r, t = schema.report, schema.trial
    query = (
        select(t.c.number, r.c.epoch, r.c.value, r.c.seconds, r.c.decision)
        .join(t, t.c.id == r.c.trial_id)
        .where(t.c.sweep_id == sweep_id)
        .order_by(r.c.id)
    )
    rows = connection.execute(query)
    return [Report(n, e, v, s, sys.intern(decision)) for n, e, v, s, decision in rows]


def read_trials(
    connection: Connection,
    sweep_id: int,
    reports: Iterable[Report],
    *,
    all_checkpoints: bool = True,
) -> list[TrialRecord]:
    """Return all trials by number, with their newest attempt, checkpoints and end.

    The decisions on their reports are left out.

    Args:
        connection: a consistent view.
        sweep_id: the sweep.
        reports: what `read_reports` returned in the same view.
        all_checkpoints: or only the newest of each trial.
    """
    trials = {
        row.number: TrialRecord(row.id, row.number, row.params, row.seed)
        for row in connection.execute(
            select(schema.trial)
            .where(schema.trial.c.sweep_id == sweep_id)
            .order_by(schema.trial.c.number)
        )
    }
    by_id = {record.id: record for record in trials.values()}
    for report in reports:
        record = trials[report.trial]
        record.epoch, record.value = report.epoch, report.value
        record.seconds += report.seconds
    table = schema.checkpoint
    newest = select(func.max(table.c.id)).join(schema.trial).group_by(table.c.trial_id)
    newest = newest.where(schema.trial.c.sweep_id == sweep_id)
    wanted = true() if all_checkpoints else table.c.id.in_(newest)
    for row in _of_sweep(connection, table, sweep_id, wanted):
        values = {f.name: row[f.name] for f in dataclasses.fields(CheckpointRecord)}
        by_id[row["trial_id"]].checkpoints.append(CheckpointRecord(**values))
    starts = _starts(connection, sweep_id)
    events: list[_Held] = [
        (at, 0, record, Holding.let_go) for at in starts for record in by_id.values()
    ]
    events += _count_attempts(connection, sweep_id, by_id, starts=starts)
    events += _last_seen(connection, sweep_id, by_id, starts=starts)
    for row in _of_sweep(connection, schema.placement, sweep_id):
        record = by_id[row["trial_id"]]
        record.placement = row["facts"]
        setup_s = float(row["facts"].get("setup_s", 0.0))
        events.append((row["at"], 2, record, partial(Holding.started, setup_s=setup_s)))
    for row in _of_sweep(connection, schema.told, sweep_id):
        record = by_id[row["trial_id"]]
        record.state, record.reason = row["state"], row["reason"]
        events.append((row["at"], 4, record, Holding.ended))
    for at, _, record, happens in sorted(events, key=lambda event: event[:2]):
        happens(record.holding, at)
    return list(trials.values())


_Held = tuple[float, int, TrialRecord, Callable[[Holding, float], None]]
"""When something happened, what comes first at the same time, to whom, and what it means."""


def _starts(connection: Connection, sweep_id: int) -> list[float]:
    """Return when the sweep's drivers started."""
    event = schema.sweep_event
    query = select(event.c.at).where(event.c.sweep_id == sweep_id, event.c.kind == "started")
    return sorted(connection.execute(query).scalars())


def _last_seen(
    connection: Connection,
    sweep_id: int,
    by_id: Mapping[int, TrialRecord],
    *,
    starts: Sequence[float],
) -> list[_Held]:
    """Return when each attempt was last at work: what it held until then adds up to the same.

    Where the next driver's clock is behind, it starts before the last reports of the attempt: so
    there is one for each driver's time.
    """
    last: dict[tuple[int, int, int], float] = {}
    for table in (schema.report, schema.checkpoint):
        query = select(table.c.trial_id, table.c.attempt, table.c.at).join(schema.trial)
        query = query.where(schema.trial.c.sweep_id == sweep_id)
        for trial_id, attempt, at in connection.execute(query):
            key = trial_id, attempt, bisect.bisect_right(starts, at)
            last[key] = max(last.get(key, at), at)
    return [(at, 3, by_id[key[0]], Holding.seen) for key, at in last.items()]


def _count_attempts(
    connection: Connection,
    sweep_id: int,
    by_id: Mapping[int, TrialRecord],
    *,
    starts: Sequence[float],
) -> list[_Held]:
    """Number the attempts; two with no start of a driver between them mean a dead worker.

    Unless the first of the two ended with a checkpoint, because it was told to hand over, or was
    set aside because of the budget, or was excused.
    """
    event = schema.sweep_event
    query = select(event.c.data).where(event.c.sweep_id == sweep_id, event.c.kind == "excused")
    excused = {(d["trial"], d["attempt"]) for d in connection.execute(query).scalars()}
    query = select(event.c.data).where(event.c.sweep_id == sweep_id, event.c.kind == SET_ASIDE)
    aside = {(data["trial"], data["attempt"]) for data in connection.execute(query).scalars()}
    within = schema.checkpoint.c.partial_s.is_not(None)
    rows = _of_sweep(connection, schema.checkpoint, sweep_id, within)
    handed_over = {(row["trial_id"], row["attempt"]) for row in rows}
    lives: dict[int, int] = {}
    begun: list[_Held] = []
    for row in _of_sweep(connection, schema.attempt, sweep_id):
        record = by_id[row["trial_id"]]
        life = bisect.bisect_right(starts, row["at"])
        was_told = (record.id, record.attempt) in handed_over
        was_aside = (record.number, record.attempt) in aside
        died = lives.get(record.id) == life and not was_told and not was_aside
        record.crashes += died and (record.number, record.attempt) not in excused
        record.attempt = row["number"]
        if (record.number, record.attempt) in aside:
            record.set_aside = record.attempt
        lives[record.id] = life
        begun.append((row["at"], 1, record, partial(Holding.begin, follows_death=died)))
    return begun


def _of_sweep(
    connection: Connection, table: Any, sweep_id: int, *wanted: ColumnElement[bool]
) -> Iterable[RowMapping]:
    query = (
        select(table)
        .join(schema.trial, schema.trial.c.id == table.c.trial_id)
        .where(schema.trial.c.sweep_id == sweep_id, *wanted)
        .order_by(table.c.at, next(iter(table.primary_key)))
    )
    return connection.execute(query).mappings()


def read_once(connection: Connection, sweep_id: int) -> tuple[set[tuple[int, str]], bool]:
    """Return the (trial number, stage) pairs recorded, and whether baselines are."""
    use, trial, event = schema.stage_use, schema.trial, schema.sweep_event
    query = (
        select(trial.c.number, use.c.stage)
        .join(trial, trial.c.id == use.c.trial_id)
        .where(use.c.sweep_id == sweep_id)
    )
    uses = {(row.number, row.stage) for row in connection.execute(query)}
    baselines = select(event.c.id).where(event.c.sweep_id == sweep_id, event.c.kind == "baselines")
    return uses, connection.execute(baselines).first() is not None


def read_driven_seconds(connection: Connection, sweep_id: int) -> float:
    """Return for how long drivers have been at work, from their starts to their last events."""
    event, report, trial = schema.sweep_event, schema.report, schema.trial
    of_sweep = event.c.sweep_id == sweep_id
    stops = select(event.c.at).where(of_sweep, event.c.kind == "stopped")
    reports = select(report.c.at).join(trial, trial.c.id == report.c.trial_id)
    reports = reports.where(trial.c.sweep_id == sweep_id)
    starts = _starts(connection, sweep_id)
    lasts = list(starts)
    for at in connection.execute(stops.union_all(reports)).scalars():
        life = bisect.bisect_left(starts, at) - 1  # a stop comes before a start at the same time
        if life >= 0:
            lasts[life] = max(lasts[life], at)
    return math.fsum(last - start for start, last in zip(starts, lasts, strict=True))


def read_metrics(
    connection: Connection, sweep_id: int, *, number: int, after: int = 0
) -> list[RowMapping]:
    """Return (epoch, metrics, seconds, at) of a trial's reports later than epoch `after`."""
    r, t = schema.report, schema.trial
    query = (
        select(r.c.epoch, r.c.metrics, r.c.seconds, r.c.at)
        .join(t, t.c.id == r.c.trial_id)
        .where(t.c.sweep_id == sweep_id, t.c.number == number, r.c.epoch > after)
        .order_by(r.c.epoch)
    )
    return list(connection.execute(query).mappings())


def read_lives(connection: Connection, sweep_id: int) -> list[RowMapping]:
    """Return (number, asked, ended) of all trials: the ended in the order of their end, first."""
    t, end = schema.trial, schema.told
    query = (
        select(t.c.number, t.c.at.label("asked"), end.c.at.label("ended"))
        .outerjoin(end, end.c.trial_id == t.c.id)
        .where(t.c.sweep_id == sweep_id)
        .order_by(end.c.at.is_(None), end.c.at, t.c.number)
    )
    return list(connection.execute(query).mappings())


def read_stage_keys(connection: Connection, sweep_id: int) -> dict[int, dict[str, str]]:
    """Return for each trial number the key of each stage product that it used."""
    use, t = schema.stage_use, schema.trial
    query = (
        select(t.c.number, use.c.stage, use.c.key)
        .join(t, t.c.id == use.c.trial_id)
        .where(use.c.sweep_id == sweep_id)
    )
    keys: dict[int, dict[str, str]] = {}
    for row in connection.execute(query):
        keys.setdefault(row.number, {})[row.stage] = row.key
    return keys


def read_tracked(connection: Connection, sweep_id: int, tracking: str) -> dict[int | None, str]:
    """Return the run of each trial number, and of the sweep under None, in one tracking store."""
    run, t = schema.tracked_run, schema.trial
    query = (
        select(t.c.number, run.c.run_id)
        .select_from(run.outerjoin(t, t.c.id == run.c.trial_id))
        .where(run.c.sweep_id == sweep_id, run.c.tracking == tracking)
        .order_by(run.c.id)
    )
    return {row.number: row.run_id for row in connection.execute(query)}


def record_tracked(
    connection: Connection, sweep_id: int, *, number: int | None, tracking: str, run_id: str
) -> None:
    """Record which run shows a trial (or the sweep: None) in one tracking store."""
    run, t = schema.tracked_run, schema.trial
    owner = select(t.c.id).where(t.c.sweep_id == sweep_id, t.c.number == number)
    trial_id = None if number is None else connection.execute(owner).scalar_one()
    same = run.c.trial_id.is_(None) if trial_id is None else run.c.trial_id == trial_id
    connection.execute(
        delete(run).where(run.c.sweep_id == sweep_id, run.c.tracking == tracking, same)
    )
    values = {"sweep_id": sweep_id, "trial_id": trial_id, "tracking": tracking, "run_id": run_id}
    append(connection, run, values)
