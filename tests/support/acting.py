"""A person who does one of each act to a simulated sweep, each at a certain place, and once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from support.simulated_driver import simulated_start

from posetune.spec.sweep import SweepSpec
from posetune.study.acts import requests
from posetune.study.acts.act import (
    Act,
    AddNote,
    EditSweep,
    Enqueue,
    ExtendTrial,
    HoldSweep,
    PinTrial,
    ReleaseSweep,
    RetryTrial,
    SetTag,
    StopTrial,
)
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.state import SweepState
from posetune.study.tables import journal
from posetune.study.tables.database import Database

__all__ = ["ACTS", "PERSON", "act_on", "check_folds", "start_now", "steered_start", "waits"]

PERSON = "ana@laptop"


def steered_start() -> SweepStart:
    """Return the sweep that the person steers, as it is started."""
    return simulated_start(budget={"trials": 8}, pruner={"max_epochs": 5})


def _edited_start() -> SweepStart:
    """Return the sweep with the file that the person edits it to: bounds, rungs and budget."""
    start = steered_start()
    changed = {
        "search": {"x": {"float": [0.1, 2], "log": True}, "depth": {"int": [4, 12], "step": 2}},
        "pruner": {"max_epochs": 5, "grace_epochs": 2, "reduction_factor": 2},
        "budget": {"trials": 9},
    }
    spec = SweepSpec.model_validate({**start.spec.canonical(), **changed})
    return dataclasses.replace(start, spec=spec, source="the edited text")


def _edit() -> EditSweep:
    edited = _edited_start()
    return EditSweep(spec=edited.spec.canonical(), source=edited.source)


def _epochs(run: SweepRun, number: int) -> int:
    return run.trials[number].epoch if number < len(run.trials) else 0


def _is_at_rest(run: SweepRun) -> bool:
    """Whether the sweep is held, and every trial has given its slot back."""
    at_work = (run.trials[number] for number in run.state.ledger.running)
    return bool(run.held) and all(trial.is_attempt_over for trial in at_work)


ACTS: list[tuple[str, Callable[[SweepRun], bool], Act]] = [
    ("enqueue", lambda run: len(run.trials) == 2, Enqueue(params={"x": 0.5, "depth": 8})),
    ("note", lambda run: len(run.trials) == 3, AddNote(text="so so", trial=2)),
    ("tag", lambda run: len(run.trials) == 3, SetTag(name="paper", value="figure-3")),
    ("stop", lambda run: _epochs(run, 2) == 1, StopTrial(trial=2)),
    ("pin", lambda run: len(run.trials) == 5, PinTrial(trial=4)),
    ("hold", lambda run: _epochs(run, 4) == 2, HoldSweep()),
    ("release", _is_at_rest, ReleaseSweep()),
    ("retry", lambda run: len(run.trials) == 6, RetryTrial(trial=2)),
    ("edit", lambda run: len(run.trials) == 7, _edit()),
    ("extend", lambda run: len(run.trials) == 8, ExtendTrial(trial=0, epochs=7)),
]
"""The name of each act, where the sweep stands when it is asked for, and what it is."""


def act_on(run: SweepRun) -> None:
    """Ask for what is due where the sweep stands, and let its driver take it up."""
    for name, is_due, act in ACTS:
        if not is_due(run) or _is_asked(run.database, name):
            continue
        request = requests.Request(act, PERSON, at=1.0, token=name)
        run.database.write(partial(_write, sweep_id=run.id, request=request))
        run.take_up_requests()


def _write(connection: Any, *, sweep_id: int, request: requests.Request) -> None:
    requests.write_request(connection, sweep_id, request)


def _is_asked(database: Database, name: str) -> bool:
    with database.reading() as connection:
        return requests.read_request(connection, name) is not None


def waits(database: Database) -> bool:
    """Whether something was asked for and not taken up: a driver was killed in between."""
    with database.reading() as connection:
        return bool(requests.read_pending(connection, 1))


def start_now(database: Database) -> SweepStart:
    """Return what the sweep is continued with: the edited file once the edit was asked for."""
    return _edited_start() if _is_asked(database, "edit") else steered_start()


def check_folds(run: SweepRun) -> None:
    """Hold the state of a driver against the fold of all events that it has committed."""
    with run.database.reading() as connection:
        row = journal.find_sweep(connection, run.name)
        assert row is not None
        folded, lived = _fields(journal.fold_sweep(connection, row)), _fields(run.state)
    assert [name for name in lived if folded[name] != lived[name]] == []


def _fields(state: SweepState) -> dict[str, Any]:
    return {**vars(state), "rungs": vars(state.rungs)}
