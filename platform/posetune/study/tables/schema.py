"""Defines the tables of a study, the same on SQLite and PostgreSQL.

`event` holds the truth: every event of every sweep, append-only, each with its place in the one
order of its sweep. `state` says what the events mean; no state is stored. `lease` says who drives a
sweep right now; a row of `tracked` is replaced when its MLflow store was wiped. `old_tables` has
the tables of the version before.
"""

from sqlalchemy import (
    JSON,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = [
    "OLD_VERSION",
    "VERSION",
    "about",
    "event",
    "lease",
    "metadata",
    "opening",
    "sweep",
    "tracked",
]

VERSION = 3
"""Version of the tables, raised when they change; a database of a newer version is refused."""

OLD_VERSION = 2
"""Version of the tables before, which are read as they are; the first driver upgrades them."""

metadata = MetaData()

about = Table("posetune", metadata, Column("version", Integer, primary_key=True))

# What a sweep was started with; its first event is written with it.
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

event = Table(
    "event",
    metadata,
    Column("sweep_id", ForeignKey("sweep.id"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),  # from 1, without gaps
    Column("kind", String(32), nullable=False),  # events.kind_of
    Column("at", Float, nullable=False),
    Column("trial", Integer),  # its number
    Column("epoch", Integer),
    Column("data", JSON(none_as_null=True), nullable=False),  # the other fields
    # All that a report says; apart, because who follows the events has no need of them.
    Column("metrics", JSON(none_as_null=True)),
    Index("event_of_trial", "sweep_id", "trial", "seq"),
)

# The MLflow run of a trial (or of the sweep itself, where trial is NULL).
tracked = Table(
    "tracked",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sweep_id", ForeignKey("sweep.id"), nullable=False, index=True),
    Column("trial", Integer),
    Column("tracking", Text, nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("at", Float, nullable=False),
    UniqueConstraint("sweep_id", "trial", "tracking"),
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
