"""Names the states of a trial and of a sweep."""

from __future__ import annotations

import enum

__all__ = ["SweepStatus", "TrialState"]


class TrialState(enum.StrEnum):
    """Where a trial stands.

    The first four are ends, which the study records; a person ended a STOPPED trial. A trial
    without an end is PAUSED while others promise more; otherwise it is RUNNING while its sweep has
    a live driver and INTERRUPTED, that is resumable, when it has none.
    """

    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    PAUSED = "PAUSED"
    RUNNING = "RUNNING"
    INTERRUPTED = "INTERRUPTED"

    @property
    def is_end(self) -> bool:
        """Whether nothing can happen to the trial any more."""
        return self not in (TrialState.PAUSED, TrialState.RUNNING, TrialState.INTERRUPTED)

    @property
    def has_value(self) -> bool:
        """Whether the trial ended with a value that a sampler may learn from."""
        return self in (TrialState.COMPLETE, TrialState.PRUNED)


class SweepStatus(enum.StrEnum):
    """Where a sweep stands; FAILED where every trial has failed."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    INTERRUPTED = "INTERRUPTED"
    FAILED = "FAILED"
