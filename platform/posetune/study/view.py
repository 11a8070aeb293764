"""The sweep as a reader sees it: states derived from the events, trials ranked.

A trial that was not told is RUNNING while its sweep has a live driver and INTERRUPTED, that is
resumable, when it has none; so no state has to be written when a driver dies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, RowMapping, func, select

from posetune.api import BadInputError
from posetune.spec.parameters import Scalar
from posetune.spec.sweep import SweepSpec
from posetune.study import journal, schema
from posetune.study.database import Database
from posetune.study.lease import is_live
from posetune.study.records import CheckpointRecord, Report, TrialRecord
from posetune.study.rungs import Rungs, Standing, compared_epochs, place

__all__ = [
    "LeftOut",
    "StageUse",
    "SweepView",
    "TrialView",
    "find_run",
    "list_sweeps",
    "needed_stages",
    "read_sweep",
    "sweep_names",
]

SweepState = Literal["RUNNING", "COMPLETE", "INTERRUPTED", "FAILED"]


@dataclass(frozen=True)
class TrialView:
    """One trial."""

    number: int
    state: str
    """RUNNING, COMPLETE, PRUNED, FAILED or INTERRUPTED."""
    params: dict[str, Scalar]
    epochs: int
    value: float | None
    """The objective at the last reported epoch."""
    seconds: float
    attempts: int
    seed: int
    reason: str
    mlflow_run_id: str | None
    checkpoint: CheckpointRecord | None = None
    """The newest committed one."""
    placement: dict[str, Any] = field(default_factory=dict)
    """Node, device and threads of the newest attempt that began to train."""
    asked: float = 0.0
    """When the sampler was asked for it; seconds since the epoch."""
    told: float | None = None
    """When it ended; None while it is open."""
    held_s: float = 0.0
    """For how long its attempts have held their resources."""


@dataclass(frozen=True)
class StageUse:
    """How often a shared stage was trained, and how often a trial found it ready."""

    trained: int
    reused: int


class LeftOut(NamedTuple):
    """What a sweep that stopped has not done."""

    never_started: int
    """Trials."""
    open: dict[int, int]
    """The trials that were stopped, and after which epoch."""


@dataclass(frozen=True)
class SweepView:
    """One sweep."""

    id: int
    name: str
    state: SweepState
    spec: SweepSpec
    source: str
    store: str
    store_digest: str
    provenance: dict[str, Any]
    started: float
    trials: tuple[TrialView, ...]
    baselines: dict[str, float]
    reports: tuple[Report, ...] = ()
    """In order of arrival."""
    stages: dict[str, StageUse] = field(default_factory=dict)
    best_metrics: dict[str, float | None] = field(default_factory=dict)
    """All that the best trial reported last; only where one sweep is read."""
    stopped: str = ""
    """Why the last driver stopped."""
    waits_for: str = ""
    """What a trial of a running sweep waits for, where one has no place on the cluster."""
    driven_s: float = 0.0
    """For how long drivers have been at work; only where one sweep is read."""

    @cached_property
    def standings(self) -> dict[int, Standing]:
        """Where each trial stands; one that has not reached the first rung is missing."""
        compared = compared_epochs(self.spec.pruner)
        return {
            report.trial: (report.epoch, report.value)
            for report in self.reports
            if report.epoch in compared and report.value is not None
        }

    @cached_property
    def audited(self) -> dict[int, int]:
        """The trials that ran on where ASHA would have cut them, and at which epoch."""
        rungs = Rungs(self.spec.pruner, self.spec.objective.mode, self.spec.sampler.seed)
        if self.spec.pruner.audit_share:
            for report in self.reports:
                rungs.replay(report.trial, report.epoch, report.value)
        return rungs.audited

    @cached_property
    def ranked(self) -> list[TrialView]:
        """The trials with a value, best first, as `rungs.place` sorts them."""

        def key(trial: TrialView) -> tuple[float, ...]:
            return place(
                trial.number,
                self.standings.get(trial.number),
                epochs=trial.epochs,
                value=trial.value,
                mode=self.spec.objective.mode,
            )

        judged = [t for t in self.trials if t.value is not None and t.state != "FAILED"]
        return sorted(judged, key=key)

    @property
    def best(self) -> TrialView | None:
        """The best trial among those that reached the highest rung."""
        return next(iter(self.ranked), None)

    @property
    def trained_s(self) -> float:
        """Training time of all trials."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def gpu_hours(self) -> float:
        """GPU-hours as the budget counts them; trial-hours where trials have no GPU."""
        held_s = sum(trial.held_s for trial in self.trials)
        return held_s * (self.spec.resources.gpu or 1.0) / 3600

    @property
    def left_out(self) -> LeftOut:
        """What the budget has kept from being trained, unless a driver is still at it."""
        if self.state == "RUNNING":
            return LeftOut(0, {})
        open_trials = {t.number: t.epochs for t in self.trials if t.state == "INTERRUPTED"}
        return LeftOut(self.spec.budget.trials - len(self.trials), open_trials)

    @property
    def leaders(self) -> tuple[int, int]:
        """The epoch at which the first in the ranking are compared, and how many they are."""
        if self.best is None or self.best.number not in self.standings:
            return 0, 0
        top, _ = self.standings[self.best.number]
        return top, sum(self.standings.get(t.number, (0, 0.0))[0] == top for t in self.ranked)


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
        row = journal.find_sweep(connection, name)
        if row is None:
            query = select(schema.sweep.c.name).order_by(schema.sweep.c.id.desc()).limit(10)
            known = ", ".join(connection.execute(query).scalars())
            raise BadInputError(
                f"no sweep {name!r} in {database.address}; "
                + (f"there is {known}" if known else "it holds none yet")
            )
        view = _view(connection, row)
        driven = journal.read_driven_seconds(connection, view.id)
        view = dataclasses.replace(view, driven_s=driven)
        if view.best is None:
            return view
        number, before = view.best.number, view.best.epochs - 1
        last = journal.read_metrics(connection, view.id, number=number, after=before)
        return dataclasses.replace(view, best_metrics=dict(last[-1]["metrics"]))


def find_run(database: Database, run_id: str) -> tuple[str, int]:
    """Return the sweep and the number of the trial that an MLflow run shows.

    Raises:
        BadInputError: no trial's run has this id.
    """
    run, trial, sweep = schema.tracked_run, schema.trial, schema.sweep
    query = (
        select(sweep.c.name, trial.c.number)
        .select_from(run.join(trial, trial.c.id == run.c.trial_id))
        .join(sweep, sweep.c.id == run.c.sweep_id)
        .where(run.c.run_id == run_id)
    )
    with database.reading() as connection:
        found = connection.execute(query).first()
    if found is None:
        raise BadInputError(
            f"{run_id}: is neither SWEEP/TRIAL nor the id of a trial's MLflow run in "
            f"{database.address} (posetune show NAME --json has them)"
        )
    return str(found.name), int(found.number)


def needed_stages(database: Database) -> set[str]:
    """Return the keys of the stage products that a sweep which is not finished has used."""
    unfinished = [v.id for v in list_sweeps(database) if v.state in ("RUNNING", "INTERRUPTED")]
    table = schema.stage_use
    with database.reading() as connection:
        query = select(table.c.key).where(table.c.sweep_id.in_(unfinished))
        return set(connection.execute(query).scalars())


def _view(connection: Connection, row: RowMapping) -> SweepView:
    budget = journal.read_budget(connection, dict(row))
    spec = SweepSpec.model_validate({**row["spec"], "budget": budget})
    if shared := journal.read_share(connection, row["id"]):
        spec = spec.with_share(shared["gpu"])
    live = _has_live_driver(connection, row["id"])
    runs = _run_ids(connection, row["id"])
    times = _times(connection, row["id"])
    reports = journal.read_reports(connection, row["id"])
    trials = tuple(
        TrialView(
            number=t.number,
            state=t.state or ("RUNNING" if live else "INTERRUPTED"),
            params=t.params,
            epochs=t.epoch,
            value=t.value,
            seconds=t.seconds,
            attempts=t.attempt,
            seed=t.seed,
            reason=t.reason or _why_open(t),
            mlflow_run_id=runs.get(t.id),
            checkpoint=t.checkpoints[-1] if t.checkpoints else None,
            placement=t.placement,
            asked=times[t.id][0],
            told=times[t.id][1],
            held_s=t.holding.seconds,
        )
        for t in journal.read_trials(connection, row["id"], reports, all_checkpoints=False)
    )
    events = _events(connection, row["id"])
    return SweepView(
        id=row["id"],
        name=row["name"],
        state=_state(trials, spec.budget.trials, live),
        spec=spec,
        source=row["source"],
        store=row["store"],
        store_digest=row["store_digest"],
        provenance=row["provenance"],
        started=row["at"],
        trials=trials,
        reports=tuple(reports),
        baselines=events.get("baselines", {}),
        stages=_stage_uses(connection, row["id"]),
        waits_for=events.get("waits", {}).get("for", "") if live else "",
        stopped="" if live else events.get("stopped", {}).get("reason", "the driver died"),
    )


def _why_open(trial: TrialRecord) -> str:
    aside = trial.state is None and 0 < trial.attempt == trial.set_aside
    return f"set aside by the budget after epoch {trial.epoch}" if aside else ""


def _state(trials: Iterable[TrialView], budget: int, live: bool) -> SweepState:
    if live:
        return "RUNNING"
    states = [trial.state for trial in trials]
    if len(states) < budget or "INTERRUPTED" in states:
        return "INTERRUPTED"
    return "FAILED" if set(states) == {"FAILED"} else "COMPLETE"


def _has_live_driver(connection: Connection, sweep_id: int) -> bool:
    row = connection.execute(
        select(schema.lease).where(schema.lease.c.sweep_id == sweep_id)
    ).one_or_none()
    return row is not None and is_live(row.host, row.pid, row.pid_started, row.expires)


def _times(connection: Connection, sweep_id: int) -> dict[int, tuple[float, float | None]]:
    """Return when each trial was asked for and when its end was told."""
    trial, told = schema.trial, schema.told
    query = select(trial.c.id, trial.c.at, told.c.at.label("end"))
    query = query.join(told, told.c.trial_id == trial.c.id, isouter=True)
    rows = connection.execute(query.where(trial.c.sweep_id == sweep_id))
    return {row.id: (row.at, row.end) for row in rows}


def _run_ids(connection: Connection, sweep_id: int) -> dict[int, str]:
    table = schema.tracked_run
    query = select(table.c.trial_id, table.c.run_id).where(
        table.c.sweep_id == sweep_id, table.c.trial_id.is_not(None)
    )
    return {row.trial_id: row.run_id for row in connection.execute(query.order_by(table.c.id))}


def _events(connection: Connection, sweep_id: int) -> dict[str, Any]:
    """Return the newest data of each kind of event; what only a dead driver said is left out."""
    table = schema.sweep_event
    query = select(table.c.kind, table.c.data).where(table.c.sweep_id == sweep_id)
    events: dict[str, Any] = {}
    for row in connection.execute(query.order_by(table.c.id)):
        events[row.kind] = row.data
        if row.kind == "started":
            events.pop("waits", None)
    return events


def _stage_uses(connection: Connection, sweep_id: int) -> dict[str, StageUse]:
    table = schema.stage_use
    query = (
        select(table.c.stage, func.count(), func.sum(table.c.trained))
        .where(table.c.sweep_id == sweep_id)
        .group_by(table.c.stage)
        .order_by(table.c.stage)
    )
    return {
        stage: StageUse(trained=int(trained), reused=int(uses - trained))
        for stage, uses, trained in connection.execute(query)
    }
