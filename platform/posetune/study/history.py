"""Describes what happened to a sweep, event by event, as lines for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from posetune.study import events
from posetune.study.tables import journal
from posetune.study.tables.database import Database

__all__ = ["HistoryEntry", "read_history"]


@dataclass(frozen=True)
class HistoryEntry:
    """Describes one event of a sweep in a line of text."""

    seq: int
    """Place of the event in the order of the sweep's events, from 1."""
    at: float
    """Seconds since the epoch."""
    trial: int | None
    """Number of the trial; None for an event of the sweep as a whole."""
    text: str


def read_history(
    database: Database, sweep_id: int, *, trial: int | None = None, after: int = 0
) -> list[HistoryEntry]:
    """Return the events of a sweep, or of a trial, later than number `after`, in order."""
    with database.reading() as connection:
        found = [
            HistoryEntry(seq, event.at, _trial_of(event), text)
            for seq, event in enumerate(
                journal.read_events(connection, sweep_id, after=after), start=after + 1
            )
            if (text := _WORDS[type(event)](event))
        ]
    return [happening for happening in found if trial is None or happening.trial == trial]


def _trial_of(event: events.Event) -> int | None:
    return getattr(event, "trial", None)


def _started(event: events.SweepStarted) -> str:
    return "; ".join(event.notes)


def _opened(event: events.DriverOpened) -> str:
    return f"a driver started, with code {(event.commit.get('commit') or 'unknown')[:12]}"


def _share(event: events.ShareMeasured) -> str:
    of = f"{event.peak_bytes / 1e9:.2f} GB of {event.total_bytes / 1e9:.2f} GB"
    return f"a step of the largest configuration took {of}: a trial gets gpu {event.gpu}"


def _peak(event: events.MemoryPeaked) -> str:
    peak = f"{event.peak_bytes / 1e9:.2f} GB"
    return f"trial {event.trial} has taken {peak} of its GPU, more than was measured before"


def _baselines(event: events.BaselinesMeasured) -> str:
    return "baselines: " + ", ".join(f"{name} {v:.2f}" for name, v in event.values.items())


def _asked(event: events.TrialAsked) -> str:
    return "asked: " + ", ".join(f"{name}={value}" for name, value in event.params.items())


def _placed(event: events.AttemptPlaced) -> str:
    facts = event.facts
    where = f"{facts.get('node')} ({facts.get('device')}, {facts.get('threads')} threads)"
    return f"attempt {event.attempt} trains on {where}"


def _stage(event: events.StageUsed) -> str:
    return f"stage {event.stage} {event.key[:8]}: {'trained' if event.trained else 'found'}"


def _reported(event: events.Reported) -> str:
    value = "not a number" if event.value is None else f"{event.value:.4g}"
    return f"epoch {event.epoch}: {value} after {event.seconds:.1f} s; {event.decision}"


def _handed_over(event: events.HandedOver) -> str:
    saved = event.checkpoint
    return f"handed over within epoch {saved.epoch + 1}, after {saved.partial_s or 0.0:.1f} s of it"


def _excused(event: events.AttemptExcused) -> str:
    return f"attempt {event.attempt} of trial {event.trial} does not count: {event.why}"


_WORDS: dict[type[events.Event], Callable[[Any], str]] = {
    events.SweepStarted: _started,
    events.DriverOpened: _opened,
    events.DriverClosed: lambda e: f"the driver stopped: {e.reason}",
    events.ShareMeasured: _share,
    events.RoomAwaited: lambda e: e.what or "no trial waits any more",
    events.BaselinesMeasured: _baselines,
    events.TrialAsked: _asked,
    events.AttemptBegun: lambda e: f"attempt {e.attempt} begins after epoch {e.from_epoch}",
    events.AttemptPlaced: _placed,
    events.StageUsed: _stage,
    events.Reported: _reported,
    events.EpochRepeated: lambda e: f"epoch {e.epoch} was trained again; its first report stands",
    events.HandedOver: _handed_over,
    events.SetAside: lambda e: f"trial {e.trial} is set aside: the budget has no room for it now",
    events.AttemptExcused: _excused,
    events.MemoryPeaked: _peak,
    events.TrialEnded: lambda e: f"{e.state}: {e.reason}",
}
