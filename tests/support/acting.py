"""A person who does one of each act to a simulated sweep, each at a certain place, and once."""

from __future__ import annotations

from collections.abc import Callable

from posetune.study.acts import requests
from posetune.study.acts.act import (
    Act,
    AddNote,
    Enqueue,
    ExtendTrial,
    PinTrial,
    RetryTrial,
    StopTrial,
)
from posetune.study.driving.sweep import SweepRun
from posetune.study.tables.database import Database

__all__ = ["ACTS", "PERSON", "act_on", "waits"]

PERSON = "ana@laptop"


def _epochs(run: SweepRun, number: int) -> int:
    return run.trials[number].epoch if number < len(run.trials) else 0


ACTS: list[tuple[str, Callable[[SweepRun], bool], Act]] = [
    ("enqueue", lambda run: len(run.trials) == 2, Enqueue(params={"x": 0.5, "depth": 8})),
    ("note", lambda run: len(run.trials) == 3, AddNote(text="so so", trial=2)),
    ("stop", lambda run: _epochs(run, 2) == 1, StopTrial(trial=2)),
    ("pin", lambda run: len(run.trials) == 5, PinTrial(trial=4)),
    ("retry", lambda run: len(run.trials) == 6, RetryTrial(trial=2)),
    ("extend", lambda run: len(run.trials) == 8, ExtendTrial(trial=0, epochs=11)),
]
"""The name of each act, where the sweep stands when it is asked for, and what it is."""


def act_on(run: SweepRun) -> None:
    """Ask for what is due where the sweep stands, and let its driver take it up."""
    for name, is_due, act in ACTS:
        if not is_due(run):
            continue
        with run._database.reading() as connection:
            if requests.read_request(connection, name) is not None:
                continue
        request = requests.Request(act, PERSON, at=1.0, token=name)
        run._database.write(lambda c, r=request: requests.write_request(c, run.id, r))
        run.take_up_requests()


def waits(database: Database) -> bool:
    """Whether something was asked for and not taken up: a driver was killed in between."""
    with database.reading() as connection:
        return bool(requests.read_pending(connection, 1))
