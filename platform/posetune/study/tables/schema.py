"""Defines the tables of a study, the same on SQLite and PostgreSQL.

`event` holds the truth: every event of every sweep, append-only, each with its place in the one
order of its sweep. `state` says what the events mean; no state is stored. `lease` says who drives a
sweep right now; a row of `tracked` is replaced when its MLflow store was wiped. `request` holds
what people want of a sweep, until a driver takes it up as an event. `old_tables` has the tables of
version 2.
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
    "READ_VERSIONS",
    "VERSION",
    "about",
    "event",
    "lease",
    "metadata",
    "opening",
    "request",
    "sweep",
    "tracked",
]

VERSION = 4
"""Raised when the tables change; a database of a newer version is refused, not guessed at."""

OLD_VERSION = 2
"""The version whose events lay in other tables, which `old_tables` and `old_events` read."""

READ_VERSIONS = (OLD_VERSION, 3, VERSION)
"""Those that are read as they are; the first driver that continues an old one upgrades it. Version
3 has today's tables but for those that came later, which an upgrade makes."""

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
    Column("kind", String(32), nullable=False),  # event_rows.kind_of
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

# What somebody wants of a sweep. `seq` is the event that it became, `refused` says why it did not;
# while both are NULL it waits for a driver.
request = Table(
    "request",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sweep_id", ForeignKey("sweep.id"), nullable=False, index=True),
    # Made by whoever asks, so that a transaction that is tried again writes one row.
    Column("token", String(32), nullable=False, unique=True),
    Column("at", Float, nullable=False),
    Column("person", Text, nullable=False),  # person@host
    Column("act", JSON, nullable=False),  # acts.Act
    Column("seq", Integer),
    Column("refused", Text),
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
