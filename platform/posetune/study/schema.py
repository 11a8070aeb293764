"""The tables of a study: the same on SQLite and PostgreSQL, append-only.

Each row is an event that happened and never changes. The exceptions are `lease`, which says who
drives a sweep right now, and `tracked_run`, a row of which is replaced when its MLflow store was
wiped. A trial's state is not stored; it follows from the events (`view`).
"""

from sqlalchemy import (
    JSON,
    Column,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = [
    "VERSION",
    "about",
    "attempt",
    "checkpoint",
    "lease",
    "metadata",
    "opening",
    "placement",
    "report",
    "stage_use",
    "sweep",
    "sweep_event",
    "told",
    "tracked_run",
    "trial",
]

VERSION = 2
"""Raised when the tables change; a database of another version is refused, not guessed at."""

metadata = MetaData()

about = Table("posetune", metadata, Column("version", Integer, primary_key=True))

sweep = Table(
    "sweep",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("at", Float, nullable=False),  # seconds since the epoch, as everywhere here
    Column("spec", JSON, nullable=False),  # SweepSpec.canonical()
    Column("source", Text, nullable=False),  # the sweep file as the user wrote it
    Column("store", Text, nullable=False),
    Column("store_digest", String(64), nullable=False),
    Column("provenance", JSON, nullable=False),  # code commit, versions, hardware
)

# What happened to a sweep as a whole: started, continued, stopped, baselines.
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

# Where an attempt runs: node, device, threads; written when its training begins.
placement = Table(
    "placement",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("trial_id", ForeignKey("trial.id"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("at", Float, nullable=False),
)

# `id` is the order of arrival, from which the rungs are rebuilt.
report = Table(
    "report",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("trial_id", ForeignKey("trial.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("value", Float),  # the objective; NULL when it was not a number
    Column("metrics", JSON, nullable=False),
    Column("decision", String(8), nullable=False),  # Decision
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
    Column("folder", Text, nullable=False),  # below the storage folder
    Column("digest", String(64), nullable=False),
    Column("bytes", Integer, nullable=False),
    # Seconds trained since the last whole epoch, where it was saved within one; else NULL.
    Column("partial_s", Float),
    Column("at", Float, nullable=False),
)

told = Table(
    "told",
    metadata,
    Column("trial_id", ForeignKey("trial.id"), primary_key=True),
    Column("state", String(12), nullable=False),  # COMPLETE, PRUNED or FAILED
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
    Column("trained", Integer, nullable=False),  # 1 where this trial's request trained it
    Column("at", Float, nullable=False),
    UniqueConstraint("trial_id", "stage"),
)

# The MLflow run of a trial (or of the sweep itself, where trial_id is NULL).
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

# Each time the test split of a store was looked at.
opening = Table(
    "opening",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("store_digest", String(64), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("why", String(64), nullable=False),  # the command
    Column("model", Text, nullable=False),
)

lease = Table(
    "lease",
    metadata,
    Column("sweep_id", ForeignKey("sweep.id"), primary_key=True),
    Column("holder", String(64), nullable=False),  # a random token of this driver life
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", String(64), nullable=False),
    Column("expires", Float, nullable=False),
    Column("stop_asked", Text),  # by whom, where somebody wants this driver to stop
)
