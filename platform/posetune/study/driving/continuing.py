"""Reads where a sweep stands that a driver begins or continues, and checks that it may be."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, RowMapping

from posetune.api import BadInputError
from posetune.study import act_events
from posetune.study.acts import requests
from posetune.study.acts.act import EditSweep
from posetune.study.acts.deciding import ActRefusedError, event_of
from posetune.study.driving.sweep_start import SweepStart, check_unchanged
from posetune.study.events import SEMANTICS
from posetune.study.state import SweepState
from posetune.study.tables import journal
from posetune.study.tables.database import Database

__all__ = ["read_continued"]


def read_continued(database: Database, start: SweepStart, clock: Callable[[], float]) -> SweepState:
    """Return where the committed events of a sweep end, if that can be continued with `start`.

    Raises:
        BadInputError: the sweep was deleted meanwhile, was begun by a newer posetune, or has
            another file or store.
    """
    with database.reading() as connection:
        row = journal.find_sweep(connection, start.name)
        if row is None:
            raise BadInputError(
                f"sweep {start.name}: was deleted from the study while it was opened; give the "
                "command again to start it anew"
            )
        state = journal.fold_sweep(connection, row)
        expected = _after_edits(connection, row, clock) or state
    if state.semantics > SEMANTICS:
        raise BadInputError(
            f"sweep {start.name}: was begun by a newer posetune, with rules "
            f"{state.semantics}; this one knows them up to {SEMANTICS}. Continue it with that "
            "posetune, or give another --name."
        )
    edited = {} if expected.edited is None else _file_of(expected.edited)
    check_unchanged({**row, **edited}, expected.spec.budget.model_dump(), start)
    return state


def _after_edits(
    connection: Connection, row: RowMapping, clock: Callable[[], float]
) -> SweepState | None:
    """Return where the sweep will stand once the edits that wait are taken up; None if none do.

    It is continued with the file that it was edited to, though no driver has taken that up.
    """
    pending = requests.read_pending(connection, row["id"])
    if not any(isinstance(request.act, EditSweep) for request in pending):
        return None
    state = journal.fold_sweep(connection, row)
    for request in pending:
        with contextlib.suppress(ActRefusedError):
            state.apply(event_of(request.act, by=request.by, at=clock(), state=state))
    return state


def _file_of(edited: act_events.SweepEdited) -> dict[str, Any]:
    """Return what a sweep is continued with since it was edited."""
    return {"spec": edited.spec, "source": edited.source}
