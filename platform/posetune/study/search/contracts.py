"""What a sampler must offer."""

from __future__ import annotations

from typing import Protocol

from posetune.spec.parameters import Scalar

__all__ = ["Sampler"]


class Sampler(Protocol):
    """Proposes the parameters of new trials."""

    def ask(self, number: int) -> dict[str, Scalar]:
        """Return the parameters of a trial, which is the next one.

        The answer is a function of the sweep's events in their order: it is the same when asked
        again, and in another process after a kill.

        Args:
            number: of the trial, from 1; trial 0 has the defaults.
        """
