"""Gives what happens in a study as metrics, by Prometheus' own client library.

Every scrape reads the study. A sweep of which nothing new was said since the scrape before is not
read again, so a study of a hundred finished sweeps costs one query for each. Sweeps on their way
are forecast now and then, `FORECAST_S` at a time each; the first scrape forecasts all of them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from posetune.api import BadInputError
from posetune.notifications.delivery import count_waiting
from posetune.study.events import RoomAwaited
from posetune.study.forecasting.forecast import Forecaster
from posetune.study.reading import read_sweep
from posetune.study.sharing.queue import read_shared_slots
from posetune.study.states import SweepStatus, TrialState
from posetune.study.tables import schema
from posetune.study.tables.database import Database
from posetune.study.tables.event_rows import kind_of
from posetune.study.tables.lease import is_live
from posetune.study.tables.shipped import read_lags
from posetune.study.tables.whole_sweep import last_event
from posetune.study.view import SweepView

__all__ = ["METRICS", "StudyMetrics", "registry_of"]

FORECAST_S = 0.5
"""For how long one sweep is simulated for one scrape, in seconds of this thread's work."""

METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "posetune_study_reachable": ("Whether the study could be read.", ()),
    "posetune_sweep_open": ("Whether a sweep has trials left to run.", ("sweep", "owner")),
    "posetune_sweep_driver": ("Whether a driver is at work on a sweep.", ("sweep", "owner")),
    "posetune_trials": ("Trials of a sweep by their state.", ("sweep", "state")),
    "posetune_epochs_total": ("Epochs that were reported.", ("sweep",)),
    "posetune_best_value": ("The best value of the objective so far.", ("sweep", "metric")),
    "posetune_slot_hours_total": ("Hours for which trials held a slot.", ("sweep",)),
    "posetune_gpu_hours_total": ("Hours of GPUs that trials held.", ("sweep",)),
    "posetune_energy_joules_total": (
        "Energy of GPUs by their own counters, where it was measured.",
        ("sweep",),
    ),
    "posetune_slot_hours_forecast": (
        "Hours for which trials will hold slots from now to the end of a sweep, if it goes on: "
        "low, middle and high of its forecast (80 %).",
        ("sweep", "bound"),
    ),
    "posetune_gpu_hours_forecast": (
        "Hours of GPUs that trials will hold from now to the end of a sweep, if it goes on: "
        "low, middle and high of its forecast (80 %).",
        ("sweep", "bound"),
    ),
    "posetune_waiting_since_seconds": (
        "Time since which a trial has no place on the cluster, in seconds since the epoch.",
        ("sweep",),
    ),
    "posetune_last_event_seconds": (
        "Time of the last event of a sweep, in seconds since the epoch.",
        ("sweep",),
    ),
    "posetune_slots_held": ("Trials at work of a sweep that shares its cluster.", ("sweep",)),
    "posetune_slots_entitled": (
        "Trials that a sweep may have at work by priority and share.",
        ("sweep",),
    ),
    "posetune_slots_wanted": (
        "Trials that a sweep would have at work if the cluster were its own.",
        ("sweep",),
    ),
    "posetune_tracking_events_waiting": (
        "Events of a sweep that its MLflow server does not show yet.",
        ("sweep",),
    ),
    "posetune_tracking_waiting_since_seconds": (
        "Time of the oldest event that the MLflow server does not show yet, in seconds since the "
        "epoch.",
        ("sweep",),
    ),
    "posetune_messages_waiting": ("Messages that were not sent yet.", ("destination",)),
    "posetune_messages_waiting_since_seconds": (
        "Time of the oldest message that was not sent yet, in seconds since the epoch.",
        ("destination",),
    ),
}
"""The help and the labels of each metric; those that end in `_total` only grow."""

_Sample = tuple[str, tuple[str, ...], float]
"""Name of a metric, values of its labels, and its value."""


@dataclass(frozen=True)
class _Read:
    """Holds what was read of a sweep."""

    mark: tuple[Any, ...]
    """What has to be different for a sweep to be read again."""
    samples: list[_Sample]


class StudyMetrics(Collector):
    """Reads a study whenever its metrics are asked for."""

    def __init__(self, database: Database) -> None:
        """Read nothing yet."""
        self._database = database
        self._read: dict[int, _Read] = {}
        self._forecasters: dict[int, Forecaster] = {}
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """Say nothing, so that the library asks for no metrics when this is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        with self._lock:
            samples = self.samples()
        families = {name: _family(name) for name in METRICS}
        for name, labels, value in samples:
            families[name].add_metric(list(labels), value)
        yield from families.values()

    def samples(self) -> list[_Sample]:
        """Return the value of each metric for each sweep; of a study that is away, only that."""
        try:
            found = [sample for read in self._sweeps() for sample in read.samples]
            found += self._shared_slots()
            found += self._lags()
            waiting = count_waiting(self._database)
        except (SQLAlchemyError, BadInputError):
            return [("posetune_study_reachable", (), 0.0)]
        for destination, count in waiting.items():
            found.append(("posetune_messages_waiting", (destination,), float(count.number)))
            found.append(("posetune_messages_waiting_since_seconds", (destination,), count.since))
        return [("posetune_study_reachable", (), 1.0), *found]

    def _sweeps(self) -> list[_Read]:
        marks = self._marks()
        self._read = {key: read for key, read in self._read.items() if key in marks}
        self._forecasters = {k: each for k, each in self._forecasters.items() if k in marks}
        for key, (name, mark) in marks.items():
            if key not in self._read or self._read[key].mark != mark:
                *_, live, at = mark
                view = read_sweep(self._database, name)
                beside = [*self._waiting_since(view), *self._to_come(view)]
                self._read[key] = _Read(mark, [*_samples(view, live=live, at=at), *beside])
        return list(self._read.values())

    def _to_come(self, view: SweepView) -> list[_Sample]:
        """Return what a sweep will take from now on; nothing where nothing is known of it."""
        if not _is_open(view):
            return []
        known = self._forecasters.setdefault(view.id, Forecaster(0.0, simulation_s=FORECAST_S))
        expected = known.latest(lambda: view)
        if expected is None:
            return []
        held_s = sum(trial.held_s for trial in view.trials)
        found: list[_Sample] = []
        for bound, seconds in expected.held_s._asdict().items():
            hours = max(0.0, seconds - held_s) / 3600
            labels = view.name, bound
            found.append(("posetune_slot_hours_forecast", labels, hours))
            if view.spec.resources.gpu:
                gpu_hours = hours * view.spec.resources.gpu
                found.append(("posetune_gpu_hours_forecast", labels, gpu_hours))
        return found

    def _lags(self) -> list[_Sample]:
        with self._database.reading() as connection:
            lags = read_lags(connection)
        found: list[_Sample] = []
        for sweep, lag in lags.items():
            found.append(("posetune_tracking_events_waiting", (sweep,), float(lag.events)))
            if lag.since is not None:
                found.append(("posetune_tracking_waiting_since_seconds", (sweep,), lag.since))
        return found

    def _shared_slots(self) -> list[_Sample]:
        with self._database.reading() as connection:
            shared = read_shared_slots(connection)
        found: list[_Sample] = []
        for sweep, slots in shared.items():
            found.append(("posetune_slots_held", (sweep,), float(slots.demand.holds)))
            found.append(("posetune_slots_entitled", (sweep,), float(slots.entitled)))
            found.append(("posetune_slots_wanted", (sweep,), float(slots.demand.wants)))
        return found

    def _marks(self) -> dict[int, tuple[str, tuple[Any, ...]]]:
        """Return the name of each sweep by its id, with what tells whether anything is new."""
        with self._database.reading() as connection:
            sweeps = connection.execute(select(schema.sweep.c.id, schema.sweep.c.name)).all()
            leases = connection.execute(select(schema.lease)).all()
            live = {row.sweep_id for row in leases if is_live(connection, row)}
            marks = {}
            for row in sweeps:
                seq, at = last_event(connection, row.id)
                marks[row.id] = row.name, (row.name, seq, row.id in live, at)
            return marks

    def _waiting_since(self, view: SweepView) -> list[_Sample]:
        if not view.waits_for or view.held_by:
            return []
        kind = kind_of(RoomAwaited)
        with self._database.reading() as connection:
            _, at = last_event(connection, view.id, kind=kind)
        return [("posetune_waiting_since_seconds", (view.name,), at)]


def registry_of(database: Database) -> CollectorRegistry:
    """Return a registry of the library with the metrics of a study and nothing else."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StudyMetrics(database))
    return registry


def _family(name: str) -> CounterMetricFamily | GaugeMetricFamily:
    text, labels = METRICS[name]
    if name.endswith("_total"):
        return CounterMetricFamily(name, text, labels=labels)
    return GaugeMetricFamily(name, text, labels=labels)


def _is_open(view: SweepView) -> bool:
    return view.state in (SweepStatus.RUNNING, SweepStatus.INTERRUPTED)


def _samples(view: SweepView, *, live: bool, at: float) -> Iterator[_Sample]:
    sweep = view.name
    who = sweep, view.owner
    yield "posetune_sweep_open", who, float(_is_open(view))
    yield "posetune_sweep_driver", who, float(live)
    states = Counter(trial.state for trial in view.trials)
    for state in TrialState:
        yield "posetune_trials", (sweep, state.lower()), float(states[state])
    yield "posetune_epochs_total", (sweep,), float(len(view.reports))
    if view.best is not None and view.best.chosen is not None:
        metric = view.spec.objective.metric
        yield "posetune_best_value", (sweep, metric), view.best.chosen.value
    slot_hours = sum(trial.held_s for trial in view.trials) / 3600
    yield "posetune_slot_hours_total", (sweep,), slot_hours
    yield "posetune_gpu_hours_total", (sweep,), slot_hours * view.spec.resources.gpu
    if view.energy_j is not None:
        yield "posetune_energy_joules_total", (sweep,), view.energy_j
    yield "posetune_last_event_seconds", (sweep,), at
