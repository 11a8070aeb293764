"""Remembers the checkpoints that nothing needs any more, until somebody deletes them."""

from __future__ import annotations

from collections.abc import Sequence

from posetune.study.events import EpochRepeated, Event, HandedOver, Reported, TrialEnded
from posetune.study.records import CheckpointRecord
from posetune.study.trials import TrialRecord

__all__ = ["ReleasedCheckpoints"]


class ReleasedCheckpoints:
    """The checkpoints of each trial that an event has let go."""

    def __init__(self) -> None:
        """Begin with none: what an earlier driver did not delete is found in storage."""
        self._by_trial: dict[int, list[CheckpointRecord]] = {}

    @property
    def trials(self) -> list[int]:
        """The trials that have such checkpoints."""
        return list(self._by_trial)

    def take(self, number: int) -> list[CheckpointRecord]:
        """Return those of a trial, once."""
        return self._by_trial.pop(number, [])

    def note(self, event: Event, trials: Sequence[TrialRecord]) -> None:
        """Remember what an event lets go.

        Args:
            event: what happened; it is not applied yet.
            trials: those of the sweep as they stood before it.
        """
        if not isinstance(event, Reported | EpochRepeated | HandedOver | TrialEnded):
            return
        trial = trials[event.trial]
        saved = list(trial.checkpoints)
        if trial.parent is not None:  # it may have kept one for this trial alone
            saved += trials[trial.parent].checkpoints
        if not isinstance(event, TrialEnded) and event.checkpoint is not None:
            saved.append(event.checkpoint)
        gone = [checkpoint for checkpoint in saved if checkpoint.folder in event.released]
        if isinstance(event, Reported):
            gone += [c for number in event.displaced for c in trials[number].checkpoints]
        if gone:
            self._by_trial.setdefault(event.trial, []).extend(gone)
