"""Describes what happened to a sweep, event by event, as lines for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from posetune.study import act_events, events
from posetune.study.tables import journal
from posetune.study.tables.database import Database

__all__ = ["HistoryEntry", "describe", "read_history"]


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
            if (text := describe(event))
        ]
    return [happening for happening in found if trial is None or happening.trial == trial]


def describe(event: events.Event) -> str:
    """Return an event in words; empty where there is nothing to say of it."""
    return _WORDS[type(event)](event)


def _trial_of(event: events.Event) -> int | None:
    return getattr(event, "trial", None)


def _started(event: events.SweepStarted) -> str:
    return "; ".join(event.notes)


def _opened(event: events.DriverOpened) -> str:
    who = f" by {event.by}" if event.by else ""
    return f"a driver started{who}, with code {(event.commit.get('commit') or 'unknown')[:12]}"


def _share(event: events.ShareMeasured) -> str:
    of = f"{event.peak_bytes / 1e9:.2f} GB of {event.total_bytes / 1e9:.2f} GB"
    return f"a step of the largest configuration took {of}: a trial gets gpu {event.gpu}"


def _peak(event: events.MemoryPeaked) -> str:
    peak = f"{event.peak_bytes / 1e9:.2f} GB"
    return f"trial {event.trial} has taken {peak} of its GPU, more than was measured before"


def _energy(event: events.EnergyMeasured) -> str:
    return f"attempt {event.attempt} has taken another {event.joules / 1000:.3g} kJ of its GPUs"


def _baselines(event: events.BaselinesMeasured) -> str:
    shown = {name: f"{v:.2f}" if abs(v) < 1e7 else f"{v:.3e}" for name, v in event.values.items()}
    return "baselines: " + ", ".join(f"{name} {v}" for name, v in shown.items())


def _asked(event: events.TrialAsked) -> str:
    who = f" for by {event.by}" if event.by else ""
    from_ = f", from trial {event.parent}'s epoch {event.parent_epoch}" if event.epochs else ""
    return f"asked{who}{from_}: {_shown(event.params)}"


def _shown(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items())


def _tagged(event: act_events.TagSet) -> str:
    if event.value is None:
        return f"{event.by} took the tag {event.name} away"
    return f"{event.by} tagged: {event.name}" + (f" = {event.value}" if event.value else "")


def _edited(event: act_events.SweepEdited) -> str:
    outside = ", ".join(map(str, event.outside))
    kept = f"; trials outside of the new bounds are kept: {outside}" if outside else ""
    return f"{event.by} edited the sweep: {'; '.join(event.changed)}{kept}"


def _placed(event: events.AttemptPlaced) -> str:
    facts = event.facts
    where = f"{facts.get('node')} ({facts.get('device')}, {facts.get('threads')} threads)"
    return f"attempt {event.attempt} trains on {where}"


def _stage(event: events.StageUsed) -> str:
    return f"stage {event.stage} {event.key[:8]}: {'trained' if event.trained else 'found'}"


def _reported(event: events.Reported) -> str:
    value = "not a number" if event.value is None else f"{event.value:.4g}"
    why = f": {event.why}" if event.why else ""
    return f"epoch {event.epoch}: {value} after {event.seconds:.1f} s; {event.decision}{why}"


def _handed_over(event: events.HandedOver) -> str:
    saved = event.checkpoint
    return f"handed over within epoch {saved.epoch + 1}, after {saved.partial_s or 0.0:.1f} s of it"


def _failed(event: events.AttemptFailed) -> str:
    counted = "" if event.is_crash else "; it does not count as a crash"
    return f"attempt {event.attempt} failed: {event.fault}{counted}"


def _ended(event: events.TrialEnded) -> str:
    then = f"; the sweep ends: {event.stops_sweep}" if event.stops_sweep else ""
    return f"{event.state}: {event.reason}{then}"


def _excused(event: events.AttemptExcused) -> str:
    return f"attempt {event.attempt} of trial {event.trial} does not count: {event.why}"


NO_ROOM = "the budget has no room for it now"

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
    events.SetAside: lambda e: f"trial {e.trial} is set aside: {e.why or NO_ROOM}",
    events.AttemptFailed: _failed,
    events.AttemptExcused: _excused,
    events.MemoryPeaked: _peak,
    events.EnergyMeasured: _energy,
    events.TrialEnded: _ended,
    act_events.NoteAdded: lambda e: f"{e.by} noted: {e.text}",
    act_events.TagSet: _tagged,
    act_events.StopAsked: lambda e: f"{e.by} stops it after epoch {e.after}",
    act_events.TrialEnqueued: lambda e: f"{e.by} enqueued a trial: {_shown(e.params)}",
    act_events.TrialPinned: lambda e: f"{e.by} pinned it: it runs to its last epoch",
    act_events.TrialRetried: lambda e: f"{e.by} takes it up again",
    act_events.TrialExtended: lambda e: f"{e.by} extended it to {e.epochs} epochs",
    act_events.SweepHeld: lambda e: f"{e.by} holds the sweep",
    act_events.SweepReleased: lambda e: f"{e.by} released the sweep",
    act_events.SweepEdited: _edited,
}
