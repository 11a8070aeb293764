"""Runs a sweep file to its end: study, Ray and MLflow together, as `posetune sweep` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from posetune.execution.driver import run_sweep as run_trials
from posetune.execution.driver_context import StopRequest
from posetune.execution.nodes.plan import warn_of_no_rungs
from posetune.home import Home, check_name
from posetune.notifications.delivery import check_destinations, count_waiting, merged
from posetune.notifications.notifier import Notifier
from posetune.notifications.outbox import WaitingCount
from posetune.promotion.judging.finalists import finalist_values
from posetune.provenance import collect, this_person
from posetune.spec.followed import FollowedRules
from posetune.spec.home_file import priced_by, read_home_destinations
from posetune.spec.loading import configure, default_params, flatten, load_sweep
from posetune.spec.sweep import SweepSpec
from posetune.storage import Storage
from posetune.storage.store_place import StorePlace
from posetune.study.driving.sweep import SweepRun, SweepStart
from posetune.study.forecasting.forecast import Forecaster
from posetune.study.reading import read_sweep, sweep_names
from posetune.study.search.seed_noise import what_is_missing
from posetune.study.tables.database import Database, open_database
from posetune.study.view import SweepView
from posetune.tracking.tracker import Tracker
from posetune.workflow.stores import find_store

__all__ = ["SweepEnd", "SweepObserver", "run_sweep"]

TRACKER_S = 8.0
"""Seconds that the end of a sweep waits for MLflow; `posetune track` ships what is missing then."""

INTERRUPTED_TRACKER_S = 3.0
"""Seconds that the end of a sweep waits for MLflow when a person has interrupted the sweep."""


class SweepObserver(Protocol):
    """Is told how a sweep begins and goes on, to show it to a person."""

    def begins(self, run: SweepRun, notes: Sequence[str]) -> None:
        """Is called when the sweep was opened.

        Args:
            run: the sweep.
            notes: what it learns from other sweeps, and what a person may not expect of it.
        """

    def watching(
        self, run: SweepRun, forecaster: Forecaster, storage: Storage
    ) -> AbstractContextManager[None]:
        """Return a block in which the sweep runs and is shown; its trials log in the storage."""

    def page(self, address: str) -> None:
        """Is called with the address at which MLflow shows the sweep."""

    def leaves(self, reason: str) -> None:
        """Is called where the process is ended at once, with the reason; from any thread."""


class _NoObserver:
    """Shows nothing."""

    def begins(self, run: SweepRun, notes: Sequence[str]) -> None:
        pass

    @contextmanager
    def watching(self, run: SweepRun, forecaster: Forecaster, storage: Storage) -> Iterator[None]:
        yield

    def page(self, address: str) -> None:
        pass

    def leaves(self, reason: str) -> None:
        pass


@dataclass(frozen=True)
class SweepEnd:
    """Says how one run of a sweep ended."""

    view: SweepView
    """The sweep as its study tells it now."""
    stopped_by_user: bool
    """Whether a person or a signal asked the driver to stop."""
    refused: bool
    """Whether no trial could go on, because of the data or the configuration."""
    failure: str
    """Why the sweep ended itself though trials are left, or this machine ended it; empty where
    neither happened."""
    trace: str
    """The traceback of the error for which it ended itself; empty without one."""
    is_tracked: bool
    """Whether MLflow holds everything; otherwise `posetune track` brings it up to date."""
    tracking_error: str
    """Why MLflow is behind, in one line; empty where it is not, or was not asked for."""
    messages_waiting: dict[str, WaitingCount] = field(default_factory=dict)
    """How many messages wait for destinations that are away, by destination."""


def run_sweep(
    file: Path,
    name: str | None = None,
    *,
    store: str | None = None,
    home: Path | None = None,
    address: str | None = None,
    tracking: bool = True,
    system_metrics: bool = False,
    observer: SweepObserver | None = None,
) -> SweepEnd:
    """Run the trials of a sweep until its budget is spent; the same call again continues it.

    Args:
        file: the sweep file.
        name: the sweep's name (default: the file's).
        store: prepared data, a folder or s3://...; it overrides the file's.
        home: where studies, checkpoints and tracking live (default: POSETUNE_HOME, or `runs`).
        address: a Ray cluster to join; without one, Ray is started on this machine.
        tracking: ship the sweep to MLflow while it runs.
        system_metrics: also log how busy the driver's machine is.
        observer: shows how the sweep goes on.

    Raises:
        BadInputError: the file, the store or the cluster cannot be used; nothing was spent.
        RayNotStartedError: Ray does not start on this machine; nothing is lost.
        StudyLostError: the study database went away for too long; nothing is lost.
    """
    name = check_name(name or file.stem)
    spec, trainable, document = load_sweep(file)
    found = find_store(spec, trainable, store)
    defaults = default_params(spec, trainable.config_model)
    trainable.stages(configure(trainable.config_model, spec.fixed, defaults), found.folder)
    resolved = Home.resolve(home).prepare()
    spec = priced_by(spec, resolved.folder)
    check_destinations(merged(spec.notify, read_home_destinations(resolved.folder)))
    database = open_database(resolved.database, patience_s=resolved.database_patience_s)
    start = SweepStart(
        name=name,
        spec=spec,
        source=document.text,
        store=found.address,
        store_digest=found.summary.digest,
        provenance=collect(),
        defaults=defaults,
        by=this_person(),
        finalists=_known_finalists(database, name, spec, resolved),
        config=flatten(configure(trainable.config_model, {}, {}).model_dump(mode="json")),
    )
    machine = _machine(database, name, resolved) if system_metrics else nullcontext()
    run = SweepRun(database, start)
    shown = observer or _NoObserver()
    missing = what_is_missing(run.spec, has_finalists=bool(start.finalists))
    warnings = [*warn_of_no_rungs(run.spec), *([missing] if missing else [])]
    shown.begins(run, [*run.state.notes, *warnings])
    forecaster = Forecaster()
    notifier = Notifier(database, resolved)
    notifier.follow(run.id, spec.notify, forecaster)
    notifier.start()
    tracker = Tracker(database, name, resolved, announce=shown.page, forecaster=forecaster)
    if tracking:
        tracker.start()
    request = StopRequest()
    request.last_words = shown.leaves
    is_tracked = False
    try:
        with shown.watching(run, forecaster, resolved.storage), machine:
            run_trials(
                run,
                trainable,
                store=StorePlace(found.address, found.summary.digest),
                home=resolved,
                address=address,
                stopping=request,
                cluster_rules=FollowedRules(file, spec.cluster),
            )
    finally:
        patience_s = INTERRUPTED_TRACKER_S if request.asked_by_user else TRACKER_S
        notifier.stop(patience_s)
        if tracking:
            is_tracked = tracker.stop(patience_s)
    return SweepEnd(
        view=read_sweep(database, name),
        stopped_by_user=request.asked_by_user,
        refused=request.refused,
        failure=request.reason if request.failed else run.broken,
        trace=run.broken_trace,
        is_tracked=is_tracked,
        tracking_error=tracker.error,
        messages_waiting=count_waiting(database, name),
    )


def _known_finalists(
    database: Database, name: str, spec: SweepSpec, home: Home
) -> tuple[tuple[float, ...], ...]:
    """Return what finalists of a sweep that is continued came to, where its patience asks."""
    if spec.budget.patience is None or name not in sweep_names(database):
        return ()
    return finalist_values(read_sweep(database, name), home)


def _machine(database: Database, name: str, home: Home) -> AbstractContextManager[object]:
    """Return a block in which the machine's load is logged to the sweep's run."""
    # Importing MLflow takes seconds, and most bad input was refused by now.
    from posetune.tracking.machine import system_metrics

    return system_metrics(database, name=name, home=home)
