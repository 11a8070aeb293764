"""Defines the tables of a study of version 2, and reads what is no event from them.

Its events lay in a table for each kind; `old_events` reads them. Nothing is written, but for which
MLflow run shows a trial. `upgrade` moves a study to the tables of today.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    delete,
    insert,
    select,
)

from posetune.study.events import Reported
from posetune.study.search.rungs import Decision
from posetune.study.tables import schema

__all__ = [
    "is_old",
    "metadata",
    "read_metrics",
    "read_runs",
    "record_run",
]

metadata = MetaData()
"""The tables that are gone today; `sweep`, `lease`, `opening` and `posetune` are as they were."""

schema.sweep.to_metadata(metadata)

sweep_event = Table(
    "sweep_event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sweep_id", ForeignKey("sweep.id"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("at", Float, nullable=False),
    Column("data", JSON, nullable=False),
)

trial = Table(
    "trial",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sweep_id", ForeignKey("sweep.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("params", JSON, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("at", Float, nullable=False),
    UniqueConstraint("sweep_id", "number"),
)

attempt = Table(
    "attempt",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("trial_id", ForeignKey("trial.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("from_epoch", Integer, nullable=False),
    UniqueConstraint("trial_id", "number"),
)

placement = Table(
    "placement",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("trial_id", ForeignKey("trial.id"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("at", Float, nullable=False),
)

report = Table(
    "report",
    metadata,
    Column("id", Integer, primary_key=True),  # the order of arrival
    Column("trial_id", ForeignKey("trial.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("value", Float),
    Column("metrics", JSON, nullable=False),
    Column("decision", String(8), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("at", Float, nullable=False),
    UniqueConstraint("trial_id", "epoch"),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("trial_id", ForeignKey("trial.id"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("folder", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("partial_s", Float),
    Column("at", Float, nullable=False),
)

told = Table(
    "told",
    metadata,
    Column("trial_id", ForeignKey("trial.id"), primary_key=True),
    Column("state", String(12), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("value", Float),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
)

stage_use = Table(
    "stage_use",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sweep_id", ForeignKey("sweep.id"), nullable=False, index=True),
    Column("trial_id", ForeignKey("trial.id"), nullable=False),
    Column("stage", String(64), nullable=False),
    Column("key", String(64), nullable=False),
    Column("trained", Integer, nullable=False),
    Column("at", Float, nullable=False),
    UniqueConstraint("trial_id", "stage"),
)

tracked_run = Table(
    "tracked_run",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sweep_id", ForeignKey("sweep.id"), nullable=False, index=True),
    Column("trial_id", ForeignKey("trial.id")),
    Column("tracking", Text, nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("at", Float, nullable=False),
    UniqueConstraint("trial_id", "tracking"),
)


def is_old(connection: Connection) -> bool:
    """Whether the study has these tables."""
    version = connection.execute(select(schema.about.c.version)).scalar()
    return version == schema.OLD_VERSION


def read_metrics(
    connection: Connection, sweep_id: int, *, number: int, after: int
) -> list[Reported]:
    """Return a trial's reports later than epoch `after`, with their metrics."""
    query = (
        select(report)
        .join(trial, trial.c.id == report.c.trial_id)
        .where(trial.c.sweep_id == sweep_id, trial.c.number == number, report.c.epoch > after)
        .order_by(report.c.epoch)
    )
    return [
        Reported(
            at=row["at"],
            trial=number,
            attempt=row["attempt"],
            epoch=row["epoch"],
            value=row["value"],
            decision=Decision(row["decision"]),
            seconds=row["seconds"],
            metrics=row["metrics"],
        )
        for row in connection.execute(query).mappings()
    ]


def read_runs(connection: Connection, sweep_id: int) -> Sequence[Row[int, str, str, float]]:
    """Return (trial number, tracking, run id, time) of the runs that show a sweep."""
    run = tracked_run
    query = (
        select(trial.c.number, run.c.tracking, run.c.run_id, run.c.at)
        .select_from(run.outerjoin(trial, trial.c.id == run.c.trial_id))
        .where(run.c.sweep_id == sweep_id)
        .order_by(run.c.id)
    )
    return connection.execute(query).all()


def record_run(
    connection: Connection, sweep_id: int, *, number: int | None, tracking: str, run_id: str
) -> None:
    """Record which run shows a trial, or the sweep (None), in one tracking store."""
    table = tracked_run
    owner = select(trial.c.id).where(trial.c.sweep_id == sweep_id, trial.c.number == number)
    trial_id = None if number is None else connection.execute(owner).scalar_one()
    same = table.c.trial_id.is_(None) if trial_id is None else table.c.trial_id == trial_id
    connection.execute(
        delete(table).where(table.c.sweep_id == sweep_id, table.c.tracking == tracking, same)
    )
    row = {"sweep_id": sweep_id, "trial_id": trial_id, "at": time.time()}
    connection.execute(insert(table).values(**row, tracking=tracking, run_id=run_id))
