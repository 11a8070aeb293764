"""The end of a sweep that stops early: its trials save where they are, if they do it quickly.

The driver cannot call a worker that is in the middle of an epoch, and a signal does not reach
another node; a file below the storage folder does. Workers look for it between steps.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from posetune.execution.checkpoints import STOP_FILE, trial_folder

__all__ = ["HAND_OVER_S", "HandingOver"]

HAND_OVER_S = 3.0
"""How long the trials have; who is slower repeats the epoch."""


class HandingOver:
    """Asks the trials at work to save and stop, once there is a reason."""

    def __init__(self, storage: Path, sweep: str, reason: Callable[[], str]) -> None:
        self.at_work: dict[int, Callable[[], None]] = {}
        """For each trial that trains what kills its worker; the scheduler keeps it."""
        self._file = (storage / trial_folder(sweep, 0)).with_name(STOP_FILE)
        self._reason = reason
        self._asked_at: float | None = None
        self._file.unlink(missing_ok=True)

    @property
    def asked(self) -> bool:
        """Whether the trials were asked."""
        return self._asked_at is not None

    def is_over(self) -> bool:
        """Whether the sweep can stop now; asks the trials at the first call with a reason."""
        if self._asked_at is None:
            if not self._reason():
                return False
            self._asked_at = time.monotonic()
            with contextlib.suppress(OSError):  # no space: the epoch is repeated then
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._file.touch()
        if time.monotonic() - self._asked_at > HAND_OVER_S:
            while self.at_work:  # Tune would wait ten seconds more for them
                self.at_work.popitem()[1]()
        return not self.at_work

    def close(self) -> None:
        """Take the wish back."""
        self._file.unlink(missing_ok=True)
