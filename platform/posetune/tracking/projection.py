"""Brings MLflow up to date with a sweep: one parent run, and one child run per trial.

`Projection.advance` compares what the study says with what MLflow is known to hold and ships the
difference. Any number of processes may do so one after the other, and be killed: each run is made
once and each step is logged once. After any fault a projection is thrown away, and the next one
learns from MLflow itself what MLflow holds.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from posetune.home import Home, check_name
from posetune.study.events import Reported
from posetune.study.forecasting.forecast import Forecaster
from posetune.study.reading import read_sweep
from posetune.study.states import SweepStatus, TrialState
from posetune.study.tables import journal
from posetune.study.tables.database import Database
from posetune.study.tables.shipped import note_shipped
from posetune.study.view import SweepView, TrialView
from posetune.tracking import artifacts, content
from posetune.tracking.runs import HeldRun, SweepRuns
from posetune.tracking.saved_views import saved_view
from posetune.tracking.server.connection import (
    connect,
    exclusive,
    mlflow_faults_explained,
    open_experiment,
    public_address,
    run_page,
)
from posetune.tracking.stop_tags import take_stops

__all__ = ["Projection", "ShipReport", "ship"]

FILES_TAG = "posetune.files"
"""Tag that says which files a run has, by a digest of their origin."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShipReport:
    """Says where MLflow shows a sweep, and how much one pass had to ship."""

    experiment_id: str
    """Id of the experiment that the runs are in."""
    run_id: str
    """Id of the sweep's own run."""
    page: str
    """Address at which a browser shows the sweep's run."""
    trials: int
    """Number of trials that MLflow shows."""
    created: int
    """Number of runs that this pass made, the sweep's own included."""
    values: int
    """Number of metric values that this pass logged."""
    uploads: int
    """Number of runs to which this pass uploaded files."""

    def __str__(self) -> str:
        return (
            f"{self.trials} trials ({self.created} runs made, {self.values} values and files of "
            f"{self.uploads} runs sent now), {self.page}"
        )


def ship(database: Database, name: str, home: Home) -> ShipReport:
    """Bring MLflow up to date with a sweep; a second call changes nothing.

    Raises:
        BadInputError: there is no such sweep, or MLflow cannot be reached.
    """
    with mlflow_faults_explained(home):
        return Projection(database, name, home).advance()


class Projection:
    """Knows what MLflow holds of one sweep, and ships the rest."""

    def __init__(
        self, database: Database, name: str, home: Home, forecaster: Forecaster | None = None
    ) -> None:
        """Connect to MLflow.

        Args:
            database: the study.
            name: name of the sweep.
            home: where tracking and storage are.
            forecaster: forecasts the sweep, in the process of its driver; None elsewhere.
        """
        self._database = database
        self._name = check_name(name)  # a lock is named after it
        self._home = home
        self._forecaster = forecaster
        self._client = connect(home)
        self._tracking = public_address(home.tracking)
        self._recorded: dict[int | None, str] = {}
        self._closed: dict[int, tuple[Any, ...]] = {}
        """The trials that have ended and that MLflow holds completely, with what may still change
        of them: see `_may_change`."""
        self._runs: SweepRuns | None = None
        self._noted = 0
        """Number of the last event that MLflow is noted to show."""

    def advance(self) -> ShipReport:
        """Ship the difference between the study and MLflow."""
        # The study is read while no other process ships, so that an older view of the sweep never
        # overwrites a newer one.
        with exclusive(self._home.folder, f"tracking-{self._name}"):
            view = read_sweep(self._database, self._name)
            if self._runs is None:
                self._runs = self._adopt(view)
            self._runs.done.clear()
            report = self._ship(view, self._runs)
            if view.seq != self._noted:
                note_shipped(self._database, view.id, self._tracking, view.seq)
                self._noted = view.seq
            if view.state == SweepStatus.RUNNING:
                take_stops(self._database, view, self._runs)
            self._runs.is_fresh = False  # from here on another process may make runs
            return report

    def _adopt(self, view: SweepView) -> SweepRuns:
        name = content.experiment_name(view)
        experiment = open_experiment(self._client, self._home, name, saved_view(view))
        with self._database.reading() as connection:
            self._recorded = journal.read_tracked(connection, view.id, self._tracking)
        return SweepRuns(
            self._client,
            experiment,
            identity=content.sweep_identity(view),
            recorded=self._recorded,
        )

    def _ship(self, view: SweepView, runs: SweepRuns) -> ShipReport:
        parent = runs.open(None, view.name, started=view.started)
        open_ = [t for t in view.trials if self._closed.get(t.number) != _may_change(t)]
        for trial in open_:
            name = f"{view.name}-{trial.number:03d}"
            held = runs.open(trial.number, name, started=trial.asked, parent=parent)
            self._log_trial(view, trial, runs=runs, held=held)
            runs.set_status(held, content.run_status(trial.state), trial.ended)
        self._record(view, runs)
        self._log_sweep(view, runs, held=parent)
        # Files are uploaded last: if that fails, the numbers have arrived.
        self._upload_sweep(view, runs, held=parent)
        for trial in open_:
            if trial.state.is_end:
                self._upload_trial(view, trial, runs=runs)
                self._closed[trial.number] = _may_change(trial)
                runs.forget(trial.number)
        return ShipReport(
            experiment_id=runs.experiment_id,
            run_id=parent.run_id,
            page=run_page(self._home, runs.experiment_id, parent.run_id),
            trials=len(view.trials),
            created=runs.done["created"],
            values=runs.done["values"],
            uploads=runs.done["uploads"],
        )

    def _log_trial(
        self, view: SweepView, trial: TrialView, *, runs: SweepRuns, held: HeldRun
    ) -> None:
        tags = content.trial_tags(view, trial, home=self._home)
        runs.log(
            held,
            metrics=content.report_metrics(
                view, trial, self._reports(view, trial, after=held.step)
            ),
            params=content.trial_params(view, trial),
            tags=tags,
        )
        for prefix in (content.CHECKPOINT_TAG, content.PEOPLE_TAG):  # of what is gone
            runs.drop_tags(held, prefix, but=tags)
        runs.log_data(held, view.store, view.store_digest)

    def _log_sweep(self, view: SweepView, runs: SweepRuns, *, held: HeldRun) -> None:
        metrics = content.sweep_metrics(view)
        new = [m for m in metrics if m.step > held.step or m.key not in held.metrics]
        expected = self._forecaster.latest(lambda: view) if self._forecaster else None
        tags = content.sweep_tags(view, self._home) | content.forecast_tag(view, expected)
        runs.log(held, metrics=new, tags=tags)
        runs.drop_tags(held, content.PEOPLE_TAG, but=tags)
        runs.log_data(held, view.store, view.store_digest)
        ends = [trial.ended for trial in view.trials if trial.ended is not None]
        ended = (
            max(ends, default=None)
            if view.state in (SweepStatus.COMPLETE, SweepStatus.FAILED)
            else None
        )
        runs.set_status(held, content.run_status(view.state), ended)

    def _upload_sweep(self, view: SweepView, runs: SweepRuns, *, held: HeldRun) -> None:
        origin, files = artifacts.sweep_files(view)
        if held.tags.get(FILES_TAG) != origin:
            artifacts.upload(runs.client, held.run_id, texts=files)
            runs.log(held, tags={FILES_TAG: origin})
            runs.done["uploads"] += 1

    def _upload_trial(self, view: SweepView, trial: TrialView, *, runs: SweepRuns) -> None:
        held = runs.held[trial.number]
        origin, folders = artifacts.trial_parts(self._home, trial)
        if trial.state == TrialState.COMPLETE and held.tags.get(FILES_TAG) != origin:
            reports = self._reports(view, trial, after=0)
            curve = artifacts.draw_learning_curve(view.spec.objective, reports, view.baselines)
            figures = {"figures/learning_curve.png": curve}
            with contextlib.ExitStack() as copies:
                found = [copies.enter_context(self._home.storage.reading(f)) for f in folders]
                parts = [folder for folder in found if folder is not None]
                artifacts.upload(runs.client, held.run_id, folders=parts, figures=figures)
            runs.log(held, tags={FILES_TAG: origin})
            runs.done["uploads"] += 1

    def _reports(self, view: SweepView, trial: TrialView, *, after: int) -> list[Reported]:
        if trial.epochs <= after:
            return []
        with self._database.reading() as connection:
            return journal.read_metrics(connection, view.id, number=trial.number, after=after)

    def _record(self, view: SweepView, runs: SweepRuns) -> None:
        """Write the ids of new runs into the study, for `posetune show`."""
        held = {number: run.run_id for number, run in runs.held.items()}
        new = {n: run_id for n, run_id in held.items() if self._recorded.get(n) != run_id}

        def record(connection: Connection) -> None:
            for number, run_id in new.items():
                journal.record_tracked(
                    connection, view.id, number=number, tracking=self._tracking, run_id=run_id
                )

        if new:
            self._database.write(record)
            self._recorded |= new


def _may_change(trial: TrialView) -> tuple[Any, ...]:
    """Return what may change of a trial that has ended: people take it up again, or tag it."""
    return (trial.checkpoints, trial.state, trial.attempts, trial.tags, trial.remarks)
