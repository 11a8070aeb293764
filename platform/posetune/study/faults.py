"""What went wrong in an attempt, as a value: how it is judged, its type, its place and its words.

A worker tells its errors apart (`trial.errors`), the driver adds the deaths that nobody could
report, `decisions` decides what follows, and the event `AttemptFailed` holds both.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["NO_PROGRESS", "Fault", "FaultKind"]


class FaultKind(enum.StrEnum):
    """What follows from a fault."""

    TOLD = "told"
    """The trainable itself says that the trial cannot go on. It is not tried again."""
    CODE = "code"
    """An error of the trainable's code, which every further try would meet too. Not tried again."""
    CRASH = "crash"
    """The worker died, or the system, the GPU or the network failed. Tried again, and counted."""
    MEMORY = "memory"
    """The GPU's memory did not suffice. Tried once more, with a GPU to itself."""
    STUCK = "stuck"
    """An epoch showed no progress for too long, and its worker was killed. Counted as a crash."""
    TERMINATED = "terminated"
    """The worker was told to end where nothing could be saved. Counted where it comes again and
    again without progress."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of an attempt."""

    kind: FaultKind
    error: str
    """The type of the error, such as `NameError`; `died` for a worker that could say nothing."""
    place: str
    """Where it was raised: file, line and function; empty where nobody knows."""
    line: str
    """What it says, in one line."""
    trace: str = ""
    """The traceback, shortened; empty where there is none."""

    def is_like(self, other: Fault) -> bool:
        """Whether two trials have the same fault: type and place of the error are equal.

        A trainable says many things from one line of its code, so there the words count too.
        """
        same = (self.kind, self.error, self.place) == (other.kind, other.error, other.place)
        return same and (self.kind != FaultKind.TOLD or self.line == other.line)

    def __str__(self) -> str:
        where = f" ({self.place})" if self.place else ""
        return f"{self.line}{where}"


NO_PROGRESS = Fault(
    FaultKind.TERMINATED, "SIGTERM", "", "being told to stop again and again, and coming no further"
)
"""What went wrong with a trial whose attempts are told to stop at one point, too often."""
