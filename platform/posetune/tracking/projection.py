"""MLflow as an idempotent projection of a sweep: one parent run, one child run per trial.

`Projection.advance` compares what the study says with what MLflow is known to hold and ships the
difference. Any number of processes may do so one after the other, and be killed; each run is made
once and each step logged once. After any fault a projection is thrown away, and the next one
learns from MLflow itself where things stand.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping

from posetune.home import Home, check_name
from posetune.study import journal
from posetune.study.database import Database
from posetune.study.forecast import Foresight
from posetune.study.view import SweepView, TrialView, read_sweep
from posetune.tracking import artifacts, content
from posetune.tracking.connection import (
    connect,
    exclusive,
    explain,
    mlflow_faults_explained,
    open_experiment,
    public_address,
    run_page,
)
from posetune.tracking.runs import HeldRun, SweepRuns

__all__ = ["Projection", "ShipReport", "Tracker", "ship"]

HEAD_START_S = 10.0
"""For the sweep: importing MLflow takes seconds, in which Ray and the first trials start."""

PERIOD_S = 2.0
SHARE = 0.1
"""The tracker is at work for at most this share of the time: a large sweep is not slowed down."""
LONGEST_PAUSE_S = 30.0
HANGING_S = 1.0
"""How long the end waits where MLflow has been at one pass for too long already."""
FILES_TAG = "posetune.files"
"""Says which files a run has: the digest of what they come from."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShipReport:
    """What MLflow shows of a sweep, and what the pass that says so had to do for it."""

    experiment_id: str
    run_id: str
    """The sweep's own run."""
    page: str
    """Where a browser shows it."""
    trials: int
    """Runs of trials."""
    created: int
    """Runs made, the sweep's own included."""
    values: int
    """Metric values logged."""
    uploads: int
    """Runs that files were uploaded to."""

    def __str__(self) -> str:
        return (
            f"{self.trials} trials ({self.created} runs made, {self.values} values and files of "
            f"{self.uploads} runs sent now), {self.page}"
        )


def ship(database: Database, name: str, home: Home) -> ShipReport:
    """Bring MLflow up to date with a sweep; again changes nothing.

    Raises:
        BadInputError: no such sweep, or MLflow cannot be reached.
    """
    with mlflow_faults_explained(home):
        return Projection(database, name, home).advance()


@dataclass(frozen=True)
class _Study:
    """The sweep at one moment."""

    view: SweepView
    lives: Sequence[RowMapping]
    stages: Mapping[int, Mapping[str, str]]


class Projection:
    """What MLflow is known to hold of one sweep, and how it is made to hold the rest."""

    def __init__(
        self, database: Database, name: str, home: Home, foresight: Foresight | None = None
    ) -> None:
        """Begin to ship; `foresight` where the sweep's driver is this process."""
        self._database = database
        self._name = check_name(name)  # a lock is named after it
        self._home = home
        self._foresight = foresight
        self._client = connect(home)
        self._tracking = public_address(home.tracking)
        self._recorded: dict[int | None, str] = {}
        self._closed: set[int] = set()
        """Trials of which MLflow holds all that there will ever be."""
        self._runs: SweepRuns | None = None

    def advance(self) -> ShipReport:
        """Ship the difference."""
        # One at a time, and the study is read inside: an older view never overwrites a newer one.
        with exclusive(self._home.folder, f"tracking-{self._name}"):
            study = self._read()
            if self._runs is None:
                self._runs = self._adopt(study.view)
            self._runs.done.clear()
            report = self._ship(study, self._runs)
            self._runs.is_fresh = False  # from here on another process may make runs
            return report

    def _read(self) -> _Study:
        view = read_sweep(self._database, self._name)
        with self._database.reading() as connection:
            lives = journal.read_lives(connection, view.id)
            return _Study(view, lives, journal.read_stage_keys(connection, view.id))

    def _adopt(self, view: SweepView) -> SweepRuns:
        experiment = open_experiment(self._client, self._home, content.experiment_name(view))
        with self._database.reading() as connection:
            self._recorded = journal.read_tracked(connection, view.id, self._tracking)
        return SweepRuns(
            self._client,
            experiment,
            identity=content.sweep_identity(view),
            recorded=self._recorded,
        )

    def _ship(self, study: _Study, runs: SweepRuns) -> ShipReport:
        view = study.view
        parent = runs.open(None, view.name, started=view.started)
        lives = {life["number"]: life for life in study.lives}
        open_ = [trial for trial in view.trials if trial.number not in self._closed]
        for trial in open_:
            life = lives[trial.number]
            name = f"{view.name}-{trial.number:03d}"
            held = runs.open(trial.number, name, started=life["asked"], parent=parent)
            self._log_trial(study, trial, runs=runs, held=held)
            runs.set_status(held, content.run_status(trial.state), life["ended"])
        self._record(view, runs)
        self._log_sweep(study, runs, held=parent)
        # Files last: where they cannot go, the numbers have arrived.
        self._upload_sweep(view, runs, held=parent)
        for trial in open_:
            if trial.state in content.CLOSED:
                self._upload_trial(view, trial, runs=runs)
                self._closed.add(trial.number)
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
        self, study: _Study, trial: TrialView, *, runs: SweepRuns, held: HeldRun
    ) -> None:
        view = study.view
        stages = study.stages.get(trial.number, {})
        runs.log(
            held,
            metrics=content.report_metrics(self._reports(view, trial, after=held.step)),
            params=content.trial_params(view, trial),
            tags=content.trial_tags(view, trial, stages=stages, home=self._home),
        )
        runs.log_data(held, view.store, view.store_digest)

    def _log_sweep(self, study: _Study, runs: SweepRuns, *, held: HeldRun) -> None:
        view = study.view
        metrics = content.sweep_metrics(view, study.lives)
        new = [m for m in metrics if m.step > held.step or m.key not in held.metrics]
        outlook = self._foresight.look(lambda: view) if self._foresight else None
        tags = content.sweep_tags(view, self._home) | content.forecast_tag(view, outlook)
        runs.log(held, metrics=new, tags=tags)
        runs.log_data(held, view.store, view.store_digest)
        ends = [life["ended"] for life in study.lives if life["ended"] is not None]
        ended = max(ends, default=None) if view.state in ("COMPLETE", "FAILED") else None
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
        if trial.state == "COMPLETE" and held.tags.get(FILES_TAG) != origin:
            reports = self._reports(view, trial, after=0)
            curve = artifacts.draw_learning_curve(view.spec.objective, reports, view.baselines)
            figures = {"figures/learning_curve.png": curve}
            with contextlib.ExitStack() as copies:
                found = [copies.enter_context(self._home.storage.reading(f)) for f in folders]
                parts = [folder for folder in found if folder is not None]
                artifacts.upload(runs.client, held.run_id, folders=parts, figures=figures)
            runs.log(held, tags={FILES_TAG: origin})
            runs.done["uploads"] += 1

    def _reports(self, view: SweepView, trial: TrialView, *, after: int) -> list[RowMapping]:
        if trial.epochs <= after:
            return []
        with self._database.reading() as connection:
            return journal.read_metrics(connection, view.id, number=trial.number, after=after)

    def _record(self, view: SweepView, runs: SweepRuns) -> None:
        """Let the study know the runs, for `posetune show`."""
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


class Tracker:
    """Ships a sweep beside its driver, from a thread that the driver never waits for."""

    def __init__(
        self,
        database: Database,
        name: str,
        home: Home,
        *,
        announce: Callable[[str], None] = lambda page: None,
        foresight: Foresight | None = None,
    ) -> None:
        """Prepare to ship.

        Args:
            database: the study's.
            name: of the sweep.
            home: where things live.
            announce: is told once where a browser shows the sweep.
            foresight: forecasts it.
        """
        self._announce = announce
        self._foresight = foresight
        self._announced = False
        self.error = ""
        """Why the last pass failed, in one line; empty when it did not."""
        self._database = database
        self._name = name
        self._home = home
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._shipped = threading.Event()
        # A daemon: the process can end while MLflow hangs.
        self._begun = math.inf
        """When the pass under way began."""
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)

    def start(self) -> None:
        """Begin shipping, every few seconds."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ship what is left and end; call it when the driver has given its lease back.

        Returns:
            Whether MLflow holds everything. If not, `error` says why, and `ship` can do it later.
        """
        self._stopping.set()
        under_way_s = time.monotonic() - self._begun
        if under_way_s > timeout_s:  # MLflow hangs, or has far more to do than there is time for
            self.error = self.error or f"it has been busy for {under_way_s:.0f} s"
            timeout_s = min(timeout_s, HANGING_S)
        self._shipped.wait(timeout_s)
        self._abandoned.set()
        return self._shipped.is_set()

    def _run(self) -> None:
        projection: Projection | None = None
        pause = PERIOD_S
        self._stopping.wait(HEAD_START_S)
        while not self._abandoned.is_set():
            is_last = self._stopping.is_set()
            self._begun = started = time.monotonic()
            try:
                projection = projection or Projection(
                    self._database, self._name, self._home, self._foresight
                )
                page = projection.advance().page
                if not self._announced:
                    self._announced = True
                    self._announce(page)
            except Exception as error:  # noqa: BLE001 - whatever it is, the sweep goes on
                _log.debug("tracking failed: %s", public_address(traceback.format_exc()))
                self.error = explain(error)
                projection = None
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                self.error = ""
                pause = max(PERIOD_S, (time.monotonic() - started) / SHARE)
                if is_last:
                    self._shipped.set()
                    return
            self._begun = math.inf
            if is_last:
                self._abandoned.wait(0.5)
            else:
                self._stopping.wait(pause)
