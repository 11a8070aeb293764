"""Turns the events of a sweep into the messages that people may want.

`Narrator.take` is told every event in order. What it returns follows from the events alone, so the
same event gives the same message, with the same id, in every process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from posetune.spec.notify import EVENTS
from posetune.spec.sweep import SweepSpec
from posetune.study import act_events, events
from posetune.study.forecasting.forecast import Forecast
from posetune.study.history import describe
from posetune.study.state import SweepState
from posetune.study.states import TrialState

__all__ = [
    "BUDGET_SHARE",
    "WAITING_S",
    "Message",
    "Narrator",
    "message_id",
    "sample_message",
]

WAITING_S = 600.0
"""Seconds for which a trial waits for a place before anybody is told."""
BUDGET_SHARE = 0.8
"""Share of a limit of hours that a forecast must reach before anybody is told."""


@dataclass(frozen=True)
class Message:
    """Says that something happened."""

    id: str
    """The same for every copy of the message, so that a receiver knows a repeated one."""
    event: str
    """One of `spec.notify.EVENTS`, or `test`."""
    at: float
    """When it happened, in seconds since the epoch."""
    sweep: str
    """Name of the sweep; empty where it is about none."""
    text: str
    """What happened, as one line for people."""
    data: dict[str, Any] = field(default_factory=dict)
    """What happened, as values for machines."""

    @property
    def time(self) -> str:
        """When it happened, as text in UTC."""
        return datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")

    @property
    def title(self) -> str:
        """What it is about, in a few words."""
        words = self.event.replace("_", " ")
        return f"sweep {self.sweep}: {words}" if self.sweep else words

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Message:
        """Return the message that `as_json` gave."""
        return cls(**given)


def sample_message(now: float) -> Message:
    """Return a message that tells of nothing, to try a destination.

    Args:
        now: in seconds since the epoch.
    """
    return Message(
        id=f"test/{now:.3f}",
        event="test",
        at=now,
        sweep="",
        text="posetune: a sample message. Whoever reads it is told of what the sweeps do.",
        data={"events": list(EVENTS)},
    )


def message_id(name: str, started: float, *parts: object) -> str:
    """Return the id of a message about a sweep.

    Args:
        name: of the sweep.
        started: when the sweep was started, which tells two sweeps of one name apart.
        parts: what tells its messages apart.
    """
    digest = hashlib.sha256(f"{name} {started!r}".encode()).hexdigest()[:8]
    return "/".join([f"{name}-{digest}", *map(str, parts)])


@dataclass(frozen=True)
class _Wait:
    """A trial waits for a place since some event."""

    seq: int
    at: float
    what: str


class Narrator:
    """Follows a sweep by its events, and says what is worth a message."""

    def __init__(self, name: str, started: float, spec: SweepSpec) -> None:
        """Begin before the first event.

        Args:
            name: of the sweep.
            started: when the sweep was started, in seconds since the epoch.
            spec: the sweep as it was started.
        """
        self.name = name
        self._started = started
        self._state = SweepState(spec)
        self._wait: _Wait | None = None
        self._has_worked = False
        """Whether the newest driver did more than open a sweep in which nothing was left."""

    @property
    def seq(self) -> int:
        """How many events it was told."""
        return self._state.seq

    @property
    def has_hours(self) -> bool:
        """Whether the budget has a limit of hours."""
        budget = self._state.spec.budget
        return budget.limit_gpu_hours is not None or budget.wall_hours is not None

    def take(self, event: events.Event) -> list[Message]:
        """Take in the next event, and return the messages that follow from it."""
        bests = len(self._state.bests)
        self._state.apply(event)
        found = self._follow_wait(event)
        if isinstance(event, events.DriverOpened):
            self._has_worked = False
        elif not isinstance(event, events.DriverClosed):
            self._has_worked = True
        if isinstance(event, events.Reported) and len(self._state.bests) > bests:
            found.append(self._new_best(event))
        elif isinstance(event, events.TrialEnded) and event.state == TrialState.FAILED:
            text = f"trial {event.trial} failed at epoch {event.epoch}: {event.reason}"
            facts = {"trial": event.trial, "epoch": event.epoch, "reason": event.reason}
            found.append(self._message("failed", event.at, text, facts))
            if event.stops_sweep:
                text = f"it stopped itself: {event.stops_sweep}"
                found.append(self._message("breaker", event.at, text, {"trial": event.trial}))
        elif isinstance(event, events.DriverClosed):
            found += self._ended(event)
        elif isinstance(event, act_events.SweepHeld):
            found.append(self._message("held", event.at, describe(event), {"by": event.by}))
        return found

    def overdue(self, now: float) -> list[Message]:
        """Return the message of a trial that has waited for too long, if one does by `now`."""
        wait = self._wait
        if wait is None or now - wait.at < WAITING_S:
            return []
        text = f"no trial has found a place for {WAITING_S / 60:.0f} min: {wait.what}"
        at = wait.at + WAITING_S
        return [self._message("waiting", at, text, {"waits_for": wait.what}, place=wait.seq)]

    def over_budget(self, expected: Forecast, now: float) -> list[Message]:
        """Return a message for each limit of hours of which a forecast expects 80 % to be used.

        Args:
            expected: the forecast of the whole sweep.
            now: when the forecast was made, in seconds since the epoch.
        """
        spec = self._state.spec
        held_hours = expected.held_s.middle * spec.resources.gpus_or_one / 3600
        of_gpus = spec.budget.limit_gpu_hours, held_hours
        by_clock = spec.budget.wall_hours, expected.wall_s.middle / 3600
        found = []
        for limit, (most, hours) in {"gpu_hours": of_gpus, "wall_hours": by_clock}.items():
            if most is None or hours < BUDGET_SHARE * most:
                continue
            words = limit.replace("_", "-")
            text = f"its forecast is {hours:.3g} {words}, of the {most:g} that it may take"
            facts = {"limit": limit, "forecast_hours": hours, "limit_hours": most}
            found.append(self._message("budget", now, text, facts, place=limit))
        return found

    def _follow_wait(self, event: events.Event) -> list[Message]:
        """Note that trials begin or cease to wait for a place.

        A wait that was too long may end before anybody was there to see how long it was.
        """
        if isinstance(event, events.RoomAwaited) and event.what:
            self._wait = self._wait or _Wait(self.seq, event.at, event.what)
            return []
        if not isinstance(event, events.RoomAwaited | events.DriverOpened | events.DriverClosed):
            return []
        # Nobody knows whether a trial still waited after the last event of a driver that died.
        found = [] if isinstance(event, events.DriverOpened) else self.overdue(event.at)
        self._wait = None
        return found

    def _new_best(self, event: events.Reported) -> Message:
        best = self._best()
        text = f"new best: {self._best_words()}"
        return self._message("new_best", event.at, text, best or {})

    def _ended(self, event: events.DriverClosed) -> list[Message]:
        state, trials = self._state, self._state.most_trials
        ends = [state.trials[number].state for number in state.ended]
        counts = f"{len(ends)} of {trials} trials ended"
        if len(ends) < trials:
            status = "INTERRUPTED"
            text = f"its driver stopped ({event.reason}): {counts}; {self._best_words()}"
        elif not self._has_worked:
            return []
        elif set(ends) == {TrialState.FAILED}:
            status, text = "FAILED", f"it has ended, and every one of its {trials} trials failed"
        else:
            status, text = "COMPLETE", f"it has ended: {counts}; {self._best_words()}"
        facts = {
            "state": status,
            "reason": event.reason,
            "trials_ended": len(ends),
            "trials": trials,
            "best": self._best(),
        }
        return [self._message("ended", event.at, text, facts)]

    def _best(self) -> dict[str, Any] | None:
        if not self._state.bests:
            return None
        best = self._state.bests[-1]
        metric = self._state.spec.objective.metric
        return {"trial": best.trial, "epoch": best.epoch, "metric": metric, "value": best.value}

    def _best_words(self) -> str:
        best = self._best()
        if best is None:
            return "no value yet"
        return "{metric} {value:.4g}, of trial {trial} at epoch {epoch}".format(**best)

    def _message(
        self, event: str, at: float, text: str, data: dict[str, Any], *, place: int | str = ""
    ) -> Message:
        """Return a message.

        Args:
            event: its name.
            at: when it happened, in seconds since the epoch.
            text: what happened.
            data: what happened, as values.
            place: what tells it from others of its name; the newest event where none is given.
        """
        return Message(
            id=message_id(self.name, self._started, place or self.seq, event),
            event=event,
            at=at,
            sweep=self.name,
            text=f"sweep {self.name}: {text}",
            data=data,
        )
