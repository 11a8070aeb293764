"""Deletes a sweep from its study, and its checkpoints and logs from storage.

It happens under the sweep's lease, so that no driver begins meanwhile, and its name stays taken
until the end. The rows go last and in one transaction. Whoever is killed before that has left a
sweep with the tag `deleting`, and the same command given again ends it.

What others need stays: sweeps that started from this one hold copies of its trials in their first
event, stage products belong to whoever has the same key, registered versions have files of their
own, and the runs in MLflow are only tagged. A sweep that an alias points at is not deleted: it is
the record that the version can be told from.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Connection, select

from posetune.api import BadInputError
from posetune.home import Home
from posetune.notifications import outbox
from posetune.study.act_events import TagSet
from posetune.study.old.upgrade import refuse_old_tables
from posetune.study.reading import find_sweep_row, list_sweeps, read_sweep
from posetune.study.sharing import demands
from posetune.study.tables import journal, schema, shipped
from posetune.study.tables.database import Database
from posetune.study.tables.journal import Run
from posetune.study.tables.lease import Lease
from posetune.study.tables.whole_sweep import delete_rows, last_seq
from posetune.study.view import SweepView

__all__ = ["DELETING", "Deleted", "WhatGoes", "delete_sweep", "what_goes"]

DELETING = "deleting"
"""Tag of a sweep whose deletion has begun."""


@dataclass(frozen=True)
class WhatGoes:
    """Says what a deletion takes away, and what it leaves."""

    sweep: str
    owner: str
    """Who started it, as person@host; empty where that is not known."""
    trials: int
    epochs: int
    bytes: int
    """Size of its checkpoints."""
    runs: int
    """Runs in MLflow, which stay."""
    stages: int
    """Stage products that no other sweep of the study has used, which stay as well."""
    learned_from_by: list[str]
    """Sweeps that started from it; they hold copies of its trials."""


@dataclass(frozen=True)
class Deleted:
    """Says what was deleted."""

    sweep: str
    trials: int
    bytes: int
    marked_runs: int
    """Runs in MLflow that have the tag `posetune.deleted` now."""
    forgotten_messages: int
    """Messages about it that had not been sent."""


def what_goes(database: Database, name: str) -> WhatGoes:
    """Return what a deletion would take away.

    Raises:
        BadInputError: there is no such sweep.
    """
    view = read_sweep(database, name)
    others = [other for other in list_sweeps(database) if other.name != name]
    with database.reading() as connection:
        runs = journal.read_runs(connection, view.id)
    return WhatGoes(
        sweep=name,
        owner=view.owner,
        trials=len(view.trials),
        epochs=len(view.reports),
        bytes=_bytes(view),
        runs=len(runs),
        stages=len(_stages(view).difference(*map(_stages, others))),
        learned_from_by=[o.name for o in others if name in o.spec.sampler.start_from],
    )


def delete_sweep(database: Database, home: Home, name: str, *, by: str) -> Deleted:
    """Delete a sweep; given again, it ends what was broken off.

    Args:
        database: the study.
        home: where its checkpoints and runs are.
        name: the sweep.
        by: who deletes it, as person@host.

    Raises:
        BadInputError: there is no such sweep, a driver is at work on it, an alias points at a
            version of it, MLflow cannot be reached, or storage keeps what is to go.
    """
    refuse_old_tables(database)
    view = read_sweep(database, name)
    with database.reading() as connection:
        runs = journal.read_runs(connection, view.id)
    lease = Lease(database, view.id, name)
    try:
        _refuse_aliases(home, name, runs)
        database.write(lambda connection: _begin(connection, lease, view, by))
        marked = _mark(home, runs, by)
        _empty_storage(home, name)
        forgotten = database.write(lambda connection: _end(connection, lease, view.id))
    finally:
        lease.release()
    return Deleted(name, len(view.trials), _bytes(view), marked, forgotten)


def _begin(connection: Connection, lease: Lease, view: SweepView, by: str) -> None:
    """Say in the study that the deletion has begun, once."""
    lease.check(connection)
    row = find_sweep_row(connection, view.name, "this study")
    if DELETING in journal.fold_sweep(connection, row).tags:
        return
    event = TagSet(time.time(), by, DELETING, f"by {by}")
    journal.append_event(connection, view.id, last_seq(connection, view.id) + 1, event)


def _end(connection: Connection, lease: Lease, sweep_id: int) -> int:
    if connection.execute(select(schema.sweep.c.id).filter_by(id=sweep_id)).scalar() is None:
        return 0  # a transaction that was tried again had done it
    lease.check(connection)
    forgotten = outbox.forget(connection, sweep_id)
    demands.forget(connection, sweep_id)
    shipped.forget(connection, sweep_id)
    delete_rows(connection, sweep_id)
    return forgotten


def _refuse_aliases(home: Home, name: str, runs: list[Run]) -> None:
    if not runs:  # it was never shown in MLflow, so no version was made of it
        return
    from posetune.promotion.uses import aliases_of  # imports MLflow
    from posetune.tracking.server.connection import public_address

    shown_at = sorted({run.tracking for run in runs})
    here = public_address(home.tracking)
    if here not in shown_at:
        raise BadInputError(
            f"sweep {name}: is shown in MLflow at {', '.join(shown_at)}, where an alias may point "
            f"at it, and this command looks at {here}; set MLFLOW_TRACKING_URI, or give posetune "
            f"track {name} first if the store was moved here"
        )
    found = aliases_of(home, {run.run_id for run in runs})
    if found:
        raise BadInputError(
            f"sweep {name}: {'; '.join(found)}, and this sweep is its record; point the alias at "
            "another version first (posetune promote, posetune rollback), or keep the sweep"
        )


def _mark(home: Home, runs: list[Run], by: str) -> int:
    if not runs:
        return 0
    from posetune.tracking.deleted import mark_deleted  # imports MLflow

    return mark_deleted(home, [run.run_id for run in runs], f"by {by}")


def _empty_storage(home: Home, name: str) -> None:
    for place in (f"checkpoints/{name}", f"logs/{name}"):
        home.storage.remove(place)
        left = home.storage.children(place)
        if left:
            raise BadInputError(
                f"sweep {name}: {home.storage.where(place)} could not be deleted ({len(left)} "
                "files or folders are left); the sweep stays until posetune delete is given again "
                "by somebody who may delete them"
            )


def _stages(view: SweepView) -> set[tuple[str, str]]:
    return {use for trial in view.trials for use in trial.stages.items()}


def _bytes(view: SweepView) -> int:
    return sum(saved.bytes for trial in view.trials for saved in trial.checkpoints)
