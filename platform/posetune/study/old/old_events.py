"""Puts the rows of a study of version 2 into one order, as events of today.

Its tables had no order over all kinds. Here rows come by their times, but never before what they
follow from (an attempt before its reports, a report before the next one, a driver's start before
what it did). What the code of then derived again whenever it opened a sweep is derived here for the
last time: which attempts ended with their workers and count as crashes, which trials were audited,
which checkpoints had been let go.
"""

from __future__ import annotations

import bisect
import dataclasses
import heapq
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from posetune.spec.sweep import SweepSpec
from posetune.study.events import (
    AttemptBegun,
    AttemptExcused,
    AttemptPlaced,
    BaselinesMeasured,
    DriverClosed,
    DriverOpened,
    EpochRepeated,
    Event,
    HandedOver,
    MemoryPeaked,
    Reported,
    RoomAwaited,
    SetAside,
    ShareMeasured,
    StageUsed,
    SweepStarted,
    TrialAsked,
    TrialEnded,
)
from posetune.study.old.old_tables import (
    attempt,
    checkpoint,
    placement,
    report,
    stage_use,
    sweep_event,
    told,
    trial,
)
from posetune.study.records import CheckpointRecord
from posetune.study.search.rungs import Decision, Rungs
from posetune.study.states import TrialState
from posetune.study.tables import schema
from posetune.study.trials import split_needed

__all__ = ["SEMANTICS", "read_events"]

SEMANTICS = 1
"""The rules of every sweep that was begun with these tables."""


def read_events(
    connection: Connection, sweep_id: int, *, with_metrics: bool = False
) -> list[Event]:
    """Return the events of a sweep in one order.

    Args:
        connection: a consistent view.
        sweep_id: the sweep.
        with_metrics: or without all that reports say but the objective.
    """
    sweep = (
        connection.execute(select(schema.sweep).where(schema.sweep.c.id == sweep_id))
        .mappings()
        .one()
    )
    rows = [
        *_sweep_rows(connection, sweep_id),
        *_trial_rows(connection, sweep_id, with_metrics=with_metrics),
    ]
    return list(_decided(sweep, list(_in_order(_paired(rows)))))


@dataclass
class _Row:
    """A row that is to become an event."""

    kind: str
    at: float
    rank: int
    """What comes first at the same time: a trial's end before the next one that is asked."""
    values: RowMapping
    trial: int | None = None
    attempt: int | None = None
    saved: RowMapping | None = None
    """Of a report the checkpoint that was committed with it."""
    waits_for: int = 0
    """How many of the rows that it follows from are not in the order yet."""
    followers: list[_Row] = field(default_factory=list)

    def follow(self, other: _Row | None) -> None:
        """Come after another row."""
        if other is not None:
            self.waits_for += 1
            other.followers.append(self)


_RANKS = {
    "started": 0,
    "report": 1,
    "checkpoint": 2,
    "sweep_event": 3,
    "told": 4,
    "trial": 5,
    "attempt": 6,
    "placement": 7,
    "stage_use": 8,
}


def _sweep_rows(connection: Connection, sweep_id: int) -> list[_Row]:
    query = select(sweep_event).where(sweep_event.c.sweep_id == sweep_id)
    rows = []
    for values in connection.execute(query.order_by(sweep_event.c.id)).mappings():
        kind = "started" if values["kind"] == "started" else "sweep_event"
        data = values["data"]
        of_attempt = values["kind"] in ("excused", "set_aside")
        trial_, attempt_ = (data["trial"], data["attempt"]) if of_attempt else (None, None)
        rows.append(_Row(kind, values["at"], _RANKS[kind], values, trial_, attempt_))
    return rows


def _trial_rows(connection: Connection, sweep_id: int, *, with_metrics: bool) -> Iterator[_Row]:
    """Yield the rows of all tables of trials; within a table in the order of their arrival."""
    number = trial.c.number.label("trial_number")
    for table in (trial, attempt, placement, report, checkpoint, told, stage_use):
        columns = [c for c in table.c if with_metrics or c is not report.c.metrics]
        query = select(*columns, number).where(trial.c.sweep_id == sweep_id)
        if table is not trial:
            query = query.join(trial, trial.c.id == table.c.trial_id)
        order = trial.c.number if table is trial else next(iter(table.primary_key))
        order = table.c.at if table is told else order
        for values in connection.execute(query.order_by(order)).mappings():
            of_attempt = values["number"] if table is attempt else values.get("attempt")
            yield _Row(
                kind=table.name,
                at=values["at"],
                rank=_RANKS[table.name],
                values=values,
                trial=values["trial_number"],
                attempt=of_attempt,
            )


def _paired(rows: Sequence[_Row]) -> list[_Row]:
    """Give each report the checkpoint of the same transaction, which is a row no more."""
    reports = {_epoch_of(row): row for row in rows if row.kind == "report"}
    left = []
    for row in rows:
        is_whole = row.kind == "checkpoint" and row.values["partial_s"] is None
        report_row = reports.get(_epoch_of(row)) if is_whole else None
        if report_row is None:
            left.append(row)
        else:
            report_row.saved = row.values
    return left


def _epoch_of(row: _Row) -> tuple[Any, ...]:
    """Return what a report and the checkpoint of the same transaction have in common."""
    return row.trial, row.attempt, row.values["epoch"], row.at


def _in_order(rows: Sequence[_Row]) -> Iterator[_Row]:
    """Yield rows by their times, but never before what they follow from."""
    _link(rows)
    places = itertools.count()
    left = {id(row): row for row in rows}
    ready: list[tuple[float, int, int, _Row]] = []

    def is_ready(row: _Row) -> None:
        heapq.heappush(ready, (row.at, row.rank, next(places), row))

    for row in rows:
        if not row.waits_for:
            is_ready(row)
    while left:
        if not ready:  # clocks that contradict each other: the times alone decide
            is_ready(min(left.values(), key=lambda row: (row.at, row.rank)))
        row = heapq.heappop(ready)[-1]
        if left.pop(id(row), None) is None:
            continue
        yield row
        for follower in row.followers:
            follower.waits_for -= 1
            if not follower.waits_for and id(follower) in left:
                is_ready(follower)


def _link(rows: Sequence[_Row]) -> None:
    """Say of each row what it follows from."""
    starts = sorted((row for row in rows if row.kind == "started"), key=lambda row: row.at)
    times = [row.at for row in starts]
    begun = {(r.trial, r.attempt): r for r in rows if r.kind == "attempt"}
    asked = {r.trial: r for r in rows if r.kind == "trial"}
    last: dict[Any, _Row] = {}
    """The last row so far of a table, or of a trial, or of an attempt."""
    for row in rows:
        chain = "sweep" if row.trial is None or row.kind in ("started", "sweep_event") else row.kind
        if chain in ("sweep", "trial", "report"):  # their order is known over all trials
            row.follow(last.get(chain))
            last[chain] = row
        life = bisect.bisect_right(times, row.at)
        if chain != "sweep" and life:
            row.follow(starts[life - 1])
        if row.kind == "attempt":
            row.follow(asked.get(row.trial))
            row.follow(begun.get((row.trial, (row.attempt or 0) - 1)))
        elif row.attempt is not None:
            row.follow(begun.get((row.trial, row.attempt)))
        elif row.kind in ("told", "stage_use"):
            row.follow(asked.get(row.trial))
    _link_ends(rows, begun)


def _link_ends(rows: Sequence[_Row], begun: dict[tuple[int | None, int | None], _Row]) -> None:
    """Let what an attempt said come before the next attempt, and all of a trial before its end."""
    ends = {row.trial: row for row in rows if row.kind == "told"}
    for row in rows:
        is_aside = row.values.get("kind") == "set_aside"
        if row.kind in ("report", "checkpoint", "placement") or is_aside:
            after = begun.get((row.trial, (row.attempt or 0) + 1)) or ends.get(row.trial)
            if after is not None:
                after.follow(row)


# -- what was decided ------------------------------------------------------------------------------


@dataclass
class _Trial:
    """What the code of then knew of a trial."""

    attempt: int = 0
    life: int = 0
    """Under which driver its newest attempt began."""
    handed_over: int = 0
    checkpoints: list[CheckpointRecord] = field(default_factory=list)

    def keep(self, new: CheckpointRecord | None, state: TrialState | None) -> tuple[str, ...]:
        """Take a checkpoint in and return the folders that are not needed any more."""
        every = [*self.checkpoints, *([] if new is None else [new])]
        self.checkpoints, released = split_needed(every, state)
        return tuple(checkpoint.folder for checkpoint in released)


def _decided(sweep: RowMapping, rows: Sequence[_Row]) -> Iterator[Event]:
    """Turn rows in order into events."""
    prior = [row.values["data"] for row in rows if row.values.get("kind") == "warm_start"]
    known = prior[0] if prior else {"trials": [], "notes": []}
    yield SweepStarted(sweep["at"], SEMANTICS, known["trials"], known["notes"])
    decisions = _Decisions(SweepSpec.model_validate(sweep["spec"]), rows)
    for row in rows:
        event = decisions.of(row)
        if event is not None:
            yield event


def _saved(values: RowMapping) -> CheckpointRecord:
    names = (f.name for f in dataclasses.fields(CheckpointRecord))
    return CheckpointRecord(**{name: values[name] for name in names})


class _Decisions:
    """Derives what was decided, as the code of then did whenever it opened a sweep."""

    def __init__(self, spec: SweepSpec, rows: Sequence[_Row]) -> None:
        self._rungs = Rungs(spec.pruner, spec.objective, spec.sampler.seed)
        self._budget = spec.budget.model_dump()
        self._has_audits = bool(spec.pruner.audit_share)
        self._trials: defaultdict[int | None, _Trial] = defaultdict(_Trial)
        self._starts = sorted(row.at for row in rows if row.kind == "started")
        # Of then: an excuse counts whenever it came, so a crash is not counted to be taken back.
        self._excused, self._set_aside = (
            {(row.trial, row.attempt) for row in rows if row.values.get("kind") == kind}
            for kind in ("excused", "set_aside")
        )

    def of(self, row: _Row) -> Event | None:
        """Return the event of a row; None where it is part of another."""
        if row.kind in ("started", "sweep_event"):
            return self._sweep_event(row)
        values, at, number = row.values, row.at, int(row.trial or 0)
        match row.kind:
            case "trial":
                return TrialAsked(at, number, values["params"], values["seed"])
            case "attempt":
                return self._attempt(row)
            case "placement":
                return AttemptPlaced(at, number, values["attempt"], values["facts"])
            case "stage_use":
                used = values["stage"], values["key"], bool(values["trained"])
                return StageUsed(at, number, *used)
            case "report":
                return self._report(row)
            case "checkpoint":
                return self._checkpoint(row)
            case _:
                return self._end(row)

    def _sweep_event(self, row: _Row) -> Event | None:
        data, at = row.values["data"], row.at
        match row.values["kind"]:
            case "started":
                budget = data.get("budget") or self._budget
                return DriverOpened(at, budget, data.get("commit") or {})
            case "stopped":
                return DriverClosed(at, data["reason"])
            case "share":
                return ShareMeasured(at, **data)
            case "peak":
                return MemoryPeaked(at, **data)
            case "waits":
                return RoomAwaited(at, data["for"])
            case "baselines":
                return BaselinesMeasured(at, data)
            case "set_aside":
                return SetAside(at, **data)
            case "excused":
                return AttemptExcused(at, **data)
        return None  # warm_start: it is part of the sweep's start

    def _attempt(self, row: _Row) -> AttemptBegun:
        """Two attempts under one driver mean a dead worker.

        Unless the first of the two handed its work over, was set aside, or was excused before.
        """
        trial_ = self._trials[row.trial]
        life = bisect.bisect_right(self._starts, row.at)
        before = (row.trial, trial_.attempt)
        ended_well = trial_.handed_over == trial_.attempt or before in self._set_aside
        died = bool(trial_.attempt) and trial_.life == life and not ended_well
        trial_.attempt, trial_.life = row.values["number"], life
        return AttemptBegun(
            at=row.at,
            trial=int(row.trial or 0),
            attempt=trial_.attempt,
            from_epoch=row.values["from_epoch"],
            follows_death=died,
            is_crash=died and before not in self._excused,
        )

    def _report(self, row: _Row) -> Reported:
        values, number = row.values, int(row.trial or 0)
        saved = None if row.saved is None else _saved(row.saved)
        epoch, value = values["epoch"], values["value"]
        is_audited = False
        if self._has_audits:
            is_audited = self._rungs.decide(number, epoch, value).is_audited
            self._rungs.record(number, epoch, value, is_audited=is_audited)
        return Reported(
            at=row.at,
            trial=number,
            attempt=values["attempt"],
            epoch=epoch,
            value=value,
            decision=Decision(values["decision"]),
            seconds=values["seconds"],
            is_audited=is_audited,
            checkpoint=saved,
            released=self._trials[number].keep(saved, None) if saved else (),
            metrics=values.get("metrics"),
        )

    def _checkpoint(self, row: _Row) -> HandedOver | EpochRepeated:
        saved, number = _saved(row.values), int(row.trial or 0)
        released = self._trials[number].keep(saved, None)
        if saved.partial_s is None:
            epoch = saved.epoch
            return EpochRepeated(row.at, number, saved.attempt, epoch, saved, released)
        self._trials[number].handed_over = saved.attempt
        return HandedOver(row.at, number, saved.attempt, saved, released)

    def _end(self, row: _Row) -> TrialEnded:
        values, number = row.values, int(row.trial or 0)
        state = TrialState(values["state"])
        return TrialEnded(
            at=row.at,
            trial=number,
            state=state,
            epoch=values["epoch"],
            value=values["value"],
            reason=values["reason"],
            released=self._trials[number].keep(None, state),
        )
