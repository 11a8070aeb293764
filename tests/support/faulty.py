"""Trainables with the faults that users write; a worker finds them on its path.

`register` returns the environment of a command that may train them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from posetune.spec.registration import TRAINABLES_VARIABLE
from posetune.testing.toy import STEPS, Toy

__all__ = ["CodeError", "SignalledToyAtStart", "StuckToy", "faulty_environment"]


def faulty_environment(cls: type[Toy]) -> dict[str, str]:
    """Return the variables with which a command finds and may train one of these classes."""
    folder = str(Path(__file__).parents[1])
    path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, TRAINABLES_VARIABLE: f"support.faulty:{cls.__name__}"}


class CodeError(Toy):
    """Has an error in its third epoch."""

    def epoch(self) -> Mapping[str, float]:
        """Train, and meet a name that is not there."""
        metrics = super().epoch()
        if self.steps >= 3 * STEPS:
            undefined_name + 1  # type: ignore[name-defined]  # noqa: F821
        return metrics


class SignalledToyAtStart(Toy):
    """Is told to stop at the beginning of its second epoch, each time."""

    def epoch(self) -> Mapping[str, float]:
        """Train, unless it is told to stop before the first step."""
        if self.steps >= STEPS:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().epoch()


class StuckToy(Toy):
    """Hangs in the second epoch of its first attempt."""

    def epoch(self) -> Mapping[str, float]:
        """Train, and wait for ever where nobody has waited before."""
        mark = Path(self.config.say)
        if self.steps == STEPS and not mark.exists():
            mark.touch()
            time.sleep(3600)
        return super().epoch()
