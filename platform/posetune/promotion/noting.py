"""Writes into a sweep's record what became of its versions: who promoted, approved or rolled back.

The registry has the names on the versions; so `posetune show` has them without asking MLflow.
"""

from __future__ import annotations

import logging

from sqlalchemy.exc import SQLAlchemyError

from posetune.api import BadInputError
from posetune.home import Home
from posetune.promotion.models import Version
from posetune.study.acts.act import AddNote
from posetune.study.acts.asking import ask
from posetune.study.tables.database import open_database

__all__ = ["note_on_sweep"]

PATIENCE_S = 2.0
"""Seconds for which a note is tried again while the database is busy or away."""

_log = logging.getLogger(__name__)


def note_on_sweep(home: Home, version: Version, text: str, *, by: str) -> None:
    """Write a note on the trial that a version was made of, if this study has its sweep.

    A note that the database does not take is logged, and nothing is raised.

    Args:
        home: where the study is.
        version: the version.
        text: the note.
        by: who has done it, as person@host.
    """
    sweep, trial = version.tags.get("posetune.sweep"), version.tags.get("posetune.trial", "")
    if sweep is None or not by:
        return
    act = AddNote(text=text, trial=int(trial) if trial.isdigit() else None)
    try:
        database = open_database(home.database, create=False, patience_s=PATIENCE_S)
        try:
            ask(database, sweep, act, by=by, wait_s=0.0)
        finally:
            database.close()
    except BadInputError:
        pass  # the sweep may be deleted, or of another study: the registry has it all the same
    except SQLAlchemyError as error:
        # The alias has moved, and the registry says so: that must not end as if nothing was done.
        cause = " ".join(str(getattr(error, "orig", None) or error).split())
        _log.warning("sweep %s: no note was taken of this (%s): %s", sweep, cause, text)
