"""Reads sweeps from the study: the fold of a sweep's events, as a `SweepView`.

A trial without an end is PAUSED where that was decided; any other is RUNNING while its sweep has a
live driver and INTERRUPTED, that is resumable, when it has none; so no state has to be written when
a driver dies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, select

from posetune.api import BadInputError
from posetune.spec.sweep import Objective, SweepSpec
from posetune.study.acts.requests import read_pending
from posetune.study.events import Reported
from posetune.study.records import Report
from posetune.study.state import SweepState
from posetune.study.states import SweepStatus, TrialState
from posetune.study.tables import journal, schema
from posetune.study.tables.database import Database
from posetune.study.tables.lease import is_live
from posetune.study.trials import TrialRecord
from posetune.study.view import SweepView, TrialView

__all__ = [
    "find_run",
    "find_sweep_row",
    "list_sweeps",
    "needed_stages",
    "read_sweep",
    "sweep_names",
]


def list_sweeps(database: Database) -> list[SweepView]:
    """Return all sweeps, newest first."""
    with database.reading() as connection:
        query = select(schema.sweep).order_by(schema.sweep.c.id.desc())
        return [_view(connection, row) for row in connection.execute(query).mappings().all()]


def sweep_names(database: Database) -> list[str]:
    """Return the names of all sweeps, newest first."""
    with database.reading() as connection:
        query = select(schema.sweep.c.name).order_by(schema.sweep.c.id.desc())
        return list(connection.execute(query).scalars())


def read_sweep(database: Database, name: str) -> SweepView:
    """Return one sweep.

    Raises:
        BadInputError: there is no sweep of this name.
    """
    with database.reading() as connection:
        row = find_sweep_row(connection, name, database.address)
        view = _view(connection, row)
        if view.best is None or view.best.chosen is None:
            return view
        number, epoch = view.best.number, view.best.chosen.epoch
        since = journal.read_metrics(connection, view.id, number=number, after=epoch - 1)
        return dataclasses.replace(view, best_metrics=dict(since[0].metrics or {}))


def find_sweep_row(connection: Connection, name: str, address: str) -> RowMapping:
    """Return the row of what a sweep was started with.

    Args:
        connection: a consistent view.
        name: the sweep.
        address: the study's, for the message.

    Raises:
        BadInputError: there is no sweep of this name.
    """
    row = journal.find_sweep(connection, name)
    if row is not None:
        return row
    query = select(schema.sweep.c.name).order_by(schema.sweep.c.id.desc()).limit(10)
    known = ", ".join(connection.execute(query).scalars())
    raise BadInputError(
        f"no sweep {name!r} in {address}; "
        + (f"there is {known}" if known else "it holds none yet")
    )


def find_run(database: Database, run_id: str) -> tuple[str, int]:
    """Return the sweep and the number of the trial that an MLflow run shows.

    Raises:
        BadInputError: no trial's run has this id.
    """
    with database.reading() as connection:
        for sweep in connection.execute(select(schema.sweep.c.id, schema.sweep.c.name)).all():
            for run in journal.read_runs(connection, sweep.id):
                if run.run_id == run_id and run.trial is not None:
                    return str(sweep.name), run.trial
    raise BadInputError(
        f"{run_id}: is neither SWEEP/TRIAL nor the id of a trial's MLflow run in "
        f"{database.address} (posetune show NAME --json has them)"
    )


def needed_stages(database: Database) -> set[str]:
    """Return the keys of the stage products that a sweep which is not finished has used."""
    unfinished = (SweepStatus.RUNNING, SweepStatus.INTERRUPTED)
    return {
        key
        for view in list_sweeps(database)
        if view.state in unfinished
        for trial in view.trials
        for key in trial.stages.values()
    }


def _view(connection: Connection, row: RowMapping) -> SweepView:
    state = SweepState(SweepSpec.model_validate(row["spec"]))
    reports: list[Report] = []
    for event in journal.read_events(connection, row["id"]):
        state.apply(event)
        if isinstance(event, Reported):
            said = event.value, event.seconds, event.decision
            reports.append(Report(event.trial, event.epoch, *said))
    live = _has_live_driver(connection, row["id"])
    runs = {run.trial: run.run_id for run in journal.read_runs(connection, row["id"])}
    objective = state.spec.objective
    at_work = live and not state.held_by
    trials = tuple(
        dataclasses.replace(
            _trial(trial, objective, at_work, runs.get(trial.number)),
            last_epoch=state.last_epoch(trial),
        )
        for trial in state.trials
    )
    chosen = {t.number for t in state.trials if t.is_pinned or t.taught is not None}
    edited = state.edited
    held = f"held by {state.held_by}; posetune release {row['name']}" if state.held_by else ""
    return SweepView(
        id=row["id"],
        name=row["name"],
        state=_status(trials, state.most_trials, live),
        spec=state.spec,
        source=row["source"] if edited is None else edited.source,
        store=row["store"],
        store_digest=row["store_digest"],
        provenance=row["provenance"],
        started=row["at"],
        trials=trials,
        reports=tuple(reports),
        ended=tuple(state.ended),
        # Those that a person chose are no sample of what cutting costs.
        audited={n: e for n, e in state.rungs.audited.items() if n not in chosen},
        baselines=state.baselines,
        bests=tuple(state.bests),
        keeps_best=state.keeps_best,
        stages={name: state.stages[name] for name in sorted(state.stages)},
        waits_for=(held or state.waits_for_room) if live else "",
        stopped="" if live else state.stopped or "the driver died",
        driven_s=state.driven_s,
        owner=state.owner,
        held_by=state.held_by,
        enqueued=tuple(event.params for event in state.queue),
        waiting_requests=tuple(read_pending(connection, row["id"])),
        remarks=tuple(state.remarks),
        tags=dict(state.tags),
        most_trials=state.most_trials,
        used_up=state.used_up,
        gain=state.gain,
        gains_in_noise=state.gains_in_noise,
        seq=state.seq,
    )


def _trial(trial: TrialRecord, objective: Objective, live: bool, run_id: str | None) -> TrialView:
    return TrialView(
        number=trial.number,
        state=_state(trial, live),
        params=trial.params,
        epochs=trial.epoch,
        value=trial.value,
        seconds=trial.seconds,
        attempts=trial.attempt,
        seed=trial.seed,
        reason=trial.reason or _why_open(trial),
        mlflow_run_id=run_id,
        chosen=trial.chosen(objective),
        improvements=tuple(trial.improvements),
        checkpoints=tuple(trial.checkpoints),
        placement=trial.placement,
        asked=trial.asked,
        ended=trial.ended,
        held_s=trial.holding.seconds,
        energy_j=trial.energy_j,
        standing=trial.standing,
        stages=trial.stages,
        parent=trial.parent,
        chosen_by=trial.chosen_by,
        stopped_by=trial.stopped_by,
        is_pinned=trial.is_pinned,
        remarks=tuple(trial.remarks),
        tags=dict(trial.tags),
    )


def _state(trial: TrialRecord, live: bool) -> TrialState:
    if trial.is_paused:
        return TrialState.PAUSED
    return trial.state or (TrialState.RUNNING if live else TrialState.INTERRUPTED)


def _why_open(trial: TrialRecord) -> str:
    if trial.is_paused:
        return f"paused after epoch {trial.epoch}: {trial.why}"
    if trial.state is None and trial.stop_after is not None:
        return f"stops after epoch {trial.stop_after}, by {trial.stopped_by}"
    if trial.state is not None or not trial.is_set_aside:
        return ""
    if trial.why_aside:
        return f"set aside after epoch {trial.epoch}: {trial.why_aside}"
    return f"set aside by the budget after epoch {trial.epoch}"


def _status(trials: Sequence[TrialView], most: int, live: bool) -> SweepStatus:
    if live:
        return SweepStatus.RUNNING
    states = {trial.state for trial in trials}
    if len(trials) < most or states & {TrialState.INTERRUPTED, TrialState.PAUSED}:
        return SweepStatus.INTERRUPTED
    return SweepStatus.FAILED if states == {TrialState.FAILED} else SweepStatus.COMPLETE


def _has_live_driver(connection: Connection, sweep_id: int) -> bool:
    row = connection.execute(
        select(schema.lease).where(schema.lease.c.sweep_id == sweep_id)
    ).one_or_none()
    return row is not None and is_live(connection, row)
