"""Counts what each sweep of a study has used since some moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, select

from posetune.spec.sweep import SweepSpec
from posetune.study.events import EnergyMeasured, EpochRepeated, Event, Reported
from posetune.study.state import SweepState
from posetune.study.tables import journal, schema
from posetune.study.tables.database import Database

__all__ = ["SweepUsage", "read_usage"]


@dataclass(frozen=True)
class SweepUsage:
    """Says what a sweep has used."""

    sweep: str
    owner: str
    """Who started it, as person@host; empty where that is not known."""
    tags: Mapping[str, str]
    trials: int
    """Trials that were under way."""
    epochs: int
    """Epochs that were trained, those that were trained again included."""
    held_s: float
    """Seconds for which attempts held a slot."""
    gpus: float
    """GPUs of a slot; 0 where trials have none."""
    energy_j: float | None = None
    """Joules of GPUs; None where nothing was measured."""

    @property
    def slot_hours(self) -> float:
        """Hours for which attempts held a slot."""
        return self.held_s / 3600

    @property
    def gpu_hours(self) -> float:
        """Hours of GPUs that they held."""
        return self.slot_hours * self.gpus


def read_usage(database: Database, *, since: float = 0.0) -> list[SweepUsage]:
    """Return what each sweep has used since some moment, newest sweep first.

    Args:
        database: the study.
        since: the moment, in seconds since the epoch. What an attempt held before a report is
            counted from then on only.
    """
    with database.reading() as connection:
        query = select(schema.sweep).order_by(schema.sweep.c.id.desc())
        rows = connection.execute(query).mappings().all()
        return [_usage(connection, row, since) for row in rows]


def _usage(connection: Connection, row: RowMapping, since: float) -> SweepUsage:
    state = SweepState(SweepSpec.model_validate(row["spec"]))
    trials: set[int] = set()
    epochs, held_s = 0, 0.0
    energy_j: float | None = None
    for event in journal.read_events(connection, row["id"]):
        added = _apply(state, event)
        counted = min(added, event.at - since)
        if counted > 0:
            held_s += counted
        if event.at >= since and isinstance(event, EnergyMeasured):
            energy_j = (energy_j or 0.0) + event.joules
        if event.at >= since and isinstance(event, Reported | EpochRepeated):
            epochs += 1
            trials.add(event.trial)
        elif counted > 0:
            trials.add(getattr(event, "trial", -1))
    return SweepUsage(
        sweep=row["name"],
        owner=state.owner,
        tags=dict(state.tags),
        trials=len(trials),
        epochs=epochs,
        held_s=held_s,
        gpus=state.spec.resources.gpu,
        energy_j=energy_j,
    )


def _apply(state: SweepState, event: Event) -> float:
    """Take an event in, and return for how many seconds more its trial has held a slot since."""
    number = getattr(event, "trial", None)
    before = _held_s(state, number)
    state.apply(event)
    return _held_s(state, number) - before


def _held_s(state: SweepState, number: int | None) -> float:
    is_known = number is not None and number < len(state.trials)
    return state.trials[number].holding.seconds if is_known and number is not None else 0.0
