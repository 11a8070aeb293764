"""Asks for an act: the one way in for commands, for Python and for a tag in MLflow.

What is asked is written down as a request; the sweep's driver, wherever it runs, takes it up within
seconds. Where no driver is at work, the request waits for the next one, but for those acts that
nobody has to carry out: they become events at once, in the transaction that writes the request.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, func, select

from posetune.api import BadInputError
from posetune.spec.home_file import read_home_file
from posetune.spec.loading import configure, default_params, load_sweep
from posetune.spec.registration import load_trainable
from posetune.spec.sweep import SweepSpec
from posetune.study.acts import requests
from posetune.study.acts.act import (
    AT_ONCE,
    Act,
    BranchTrial,
    EditSweep,
    Enqueue,
    ExtendTrial,
    StopTrial,
)
from posetune.study.acts.deciding import ActRefusedError, event_of
from posetune.study.acts.requests import Request
from posetune.study.decisions.decider import Decider
from posetune.study.events import Event
from posetune.study.reading import find_sweep_row
from posetune.study.state import SweepState
from posetune.study.tables import journal, schema
from posetune.study.tables.database import Database
from posetune.study.tables.lease import is_live

__all__ = ["Asked", "ask", "branch_of", "edit_of", "enqueue_of", "note_of_extension"]

TAKE_UP_S = 20.0
"""Seconds for which somebody who asks waits for a live driver to take the request up."""


@dataclass(frozen=True)
class Asked:
    """What has become of a request by now."""

    sweep: str
    request: Request
    is_live: bool
    """Whether a driver was at work on the sweep when it was asked for."""

    @property
    def event(self) -> int | None:
        """Number of the event that it became; None while it waits for a driver."""
        return self.request.seq

    def as_json(self) -> dict[str, Any]:
        """Return it as a command prints it."""
        return {
            "sweep": self.sweep,
            "act": self.request.act.model_dump(mode="json", exclude={"spec", "source"}),
            "by": self.request.by,
            "event": self.event,
            "waits": self.request.is_waiting,
        }


def ask(database: Database, name: str, act: Act, *, by: str, wait_s: float = TAKE_UP_S) -> Asked:
    """Ask for an act, and wait until a live driver has taken it up.

    Args:
        database: the study.
        name: the sweep.
        act: what is wanted.
        by: by whom, as person@host.
        wait_s: for how long to wait for a driver, in seconds.

    Raises:
        BadInputError: there is no such sweep, or it does not allow the act.
    """
    request = Request(act, by)
    while True:
        look = _look(database, name)
        try:
            events = _events(look, request)
        except ActRefusedError as error:
            raise ActRefusedError(f"sweep {name}: {error}") from error
        if database.write(partial(_write, look=look, request=request, at_once=events)):
            break
        # The sweep has gone on between the look and the writing: look again.
    deadline = time.monotonic() + (wait_s if look.is_live else 0.0)
    while True:
        with database.reading() as connection:
            found = requests.read_request(connection, request.token) or request
        if found.refused:
            raise ActRefusedError(f"sweep {name}: {found.refused}")
        if not found.is_waiting or time.monotonic() >= deadline:
            return Asked(name, found, look.is_live)
        time.sleep(0.1)


@dataclass(frozen=True)
class _Look:
    """A sweep as it was when somebody looked at it, to ask for an act."""

    sweep_id: int
    seq: int
    """Number of its last event."""
    state: SweepState
    """Where it stands; a copy that nobody else has."""
    pending: tuple[Request, ...]
    is_live: bool


def _look(database: Database, name: str) -> _Look:
    with database.reading() as connection:
        row = find_sweep_row(connection, name, database.address)
        if not requests.has_requests(connection):
            raise BadInputError(
                f"study database {database.address}: was written by an earlier posetune, whose "
                "tables take no requests; posetune upgrade brings it to those of today"
            )
        state = journal.fold_sweep(connection, row)
        return _Look(
            sweep_id=row["id"],
            seq=state.seq,
            state=state,
            pending=tuple(requests.read_pending(connection, row["id"])),
            is_live=_is_driven(connection, row["id"]),
        )


def _events(look: _Look, request: Request) -> list[Event]:
    """Return the events that the request becomes at once; none where it waits for a driver.

    Raises:
        ActRefusedError: the sweep does not allow the act. What is refused here was never written
            down; a driver may still refuse it, because the sweep goes on until then.
    """
    state, act = look.state, request.act
    if look.is_live or act.kind not in AT_ONCE:
        for earlier in look.pending:  # they come first
            with contextlib.suppress(ActRefusedError):
                state.apply(_event(earlier, state))
        _refuse_extended(look, act)
        _event(request, state)
        return []
    state.let_attempts_go()  # where its driver died, the events do not say so
    events: list[Event] = [_event(request, state)]
    if isinstance(act, StopTrial):
        state.apply(events[0])
        events.append(Decider(state, lambda: request.at).finish(act.trial, at_rest=True))
    return events


def _refuse_extended(look: _Look, act: Act) -> None:
    """Refuse to extend a trial that has ended, but that an extension which waits opens again.

    Raises:
        ActRefusedError: it is one.
    """
    if not isinstance(act, ExtendTrial | BranchTrial) or act.trial >= len(look.state.trials):
        return
    for earlier in look.pending:
        is_same = isinstance(earlier.act, ExtendTrial) and earlier.act.trial == act.trial
        if is_same and look.state.trials[act.trial].state is None:
            raise ActRefusedError(
                f"trial {act.trial}: an extension of it, by {earlier.by}, waits for a driver "
                "already; let one take that up first (posetune show says by which command)"
            )


def _event(request: Request, state: SweepState) -> Event:
    return event_of(request.act, by=request.by, at=request.at, state=state)


def _write(connection: Connection, look: _Look, request: Request, at_once: Sequence[Event]) -> bool:
    """Write the request and its events; return False where the sweep has gone on since the look.

    A driver locks the row of its lease and then, by an event, that of its sweep; so does this. One
    that has no lease yet waits: the row that it writes refers to the sweep's, which is locked.
    """
    sweep_id, locked = look.sweep_id, schema.sweep.c.id
    if at_once:
        if _is_driven(connection, sweep_id, lock=True):
            return False
        connection.execute(select(locked).where(locked == sweep_id).with_for_update())
    if requests.read_request(connection, request.token) is not None:
        return True  # it was committed, and the answer was lost
    if at_once:
        newest = select(func.max(schema.event.c.seq)).where(schema.event.c.sweep_id == sweep_id)
        has_gone_on = connection.execute(newest).scalar() != look.seq
        if has_gone_on or _is_driven(connection, sweep_id):
            return False
    requests.write_request(connection, sweep_id, request)
    for seq, event in enumerate(at_once, start=look.seq + 1):
        journal.append_event(connection, sweep_id, seq, event)
    if at_once:
        requests.mark_taken_up(connection, request.token, look.seq + 1)
    return True


def _is_driven(connection: Connection, sweep_id: int, *, lock: bool = False) -> bool:
    query = select(schema.lease).where(schema.lease.c.sweep_id == sweep_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return row is not None and is_live(connection, row)


# -- acts that are checked against the trainable ---------------------------------------------------


def enqueue_of(database: Database, name: str, settings: Mapping[str, Any]) -> Enqueue:
    """Return the act that enqueues a trial: the parameters of trial 0, changed by `settings`.

    Raises:
        BadInputError: the trainable does not take them.
    """
    spec = _state(database, name).spec
    defaults = default_params(spec, load_trainable(spec.trainable).config_model)
    _check_settings(spec, name, defaults, settings)
    return Enqueue(params={**defaults, **settings})


def branch_of(
    database: Database, name: str, trial: int, *, epochs: int, settings: Mapping[str, Any]
) -> BranchTrial:
    """Return the act that begins a new trial at another one's checkpoint, with other parameters.

    Args:
        database: the study.
        name: the sweep.
        trial: number of the trial to go on from.
        epochs: the new trial's last epoch.
        settings: values of searched fields; the others have those of the trial.

    Raises:
        BadInputError: the trainable does not take them.
    """
    state = _state(database, name)
    params = state.trials[trial].params if trial < len(state.trials) else {}
    _check_settings(state.spec, name, params, settings)
    return BranchTrial(trial=trial, epochs=epochs, params=dict(settings))


def _check_settings(
    spec: SweepSpec, name: str, params: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    unknown = sorted(set(settings) - set(spec.search))
    if unknown:
        raise BadInputError(
            f"--set {unknown[0]}: sweep {name} does not search it; it searches "
            f"{', '.join(spec.search)}"
        )
    model = load_trainable(spec.trainable).config_model
    try:
        configure(model, spec.fixed, {**params, **settings})
    except (ValidationError, TypeError) as error:
        cause = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        shown = ", ".join(f"{key}={value}" for key, value in settings.items())
        raise BadInputError(f"--set {shown}: {spec.trainable} does not take it: {cause}") from error


def edit_of(file: Path, home: Path) -> EditSweep:
    """Return the act that gives a sweep another file, once that is found to be right.

    Args:
        file: the sweep file.
        home: the folder whose `posetune.yaml` may say what a GPU-hour costs.

    Raises:
        BadInputError: the file cannot be read, or something in it is wrong.
    """
    spec, _, document = load_sweep(file)
    if spec.budget.cost is not None:
        spec = spec.priced(read_home_file(home).cost_per_gpu_hour)
    return EditSweep(spec=spec.canonical(), source=document.text)


def note_of_extension(database: Database, name: str, act: ExtendTrial) -> str:
    """Return what its trainable says of training a trial on; empty where it says nothing."""
    state = _state(database, name)
    trainable = load_trainable(state.spec.trainable)
    says = getattr(trainable, "note_of_extension", None)
    if says is None or act.trial >= len(state.trials):
        return ""
    params = state.trials[act.trial].params
    return str(says(configure(trainable.config_model, state.spec.fixed, params)))


def _state(database: Database, name: str) -> SweepState:
    with database.reading() as connection:
        return journal.fold_sweep(connection, find_sweep_row(connection, name, database.address))
