"""The loss terms of one training step, each computed as soon as all that it takes is known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

from torch import Tensor

from selfpose.config import SelfPoseConfig
from selfpose.method.losses import LossTerm
from selfpose.method.quantities import Quantities, needs_of

__all__ = ["Losses", "Terms", "computed_terms"]

Terms = dict[str, Tensor]
"""Terms before weighing, each (), by name; beside them what else a step reports."""


def computed_terms(config: SelfPoseConfig) -> tuple[LossTerm, ...]:
    """Return the terms that a step computes: those with a weight, and those that cost nothing."""
    weighted = config.loss_terms
    return tuple(term for term in config.known_terms if term.always or term in weighted)


class Losses:
    """Collects what a step computes and turns it into terms."""

    def __init__(self, terms: Iterable[LossTerm]) -> None:
        """Wait for what the terms take.

        Args:
            terms: to be computed; of those that become known together, in this order.
        """
        self.values: Terms = {}
        self._waiting = list(terms)
        self._known: dict[str, Any] = {}

    def wants(self, quantity: str) -> bool:
        """Return whether a term that is still to be computed takes a quantity.

        Raises:
            KeyError: there is no such quantity.
        """
        needs_of(quantity)
        return any(quantity in term.takes for term in self._waiting)

    def know(self, **quantities: Unpack[Quantities]) -> None:
        """Remember quantities, and compute the terms that have waited for them alone."""
        self._known |= quantities
        self._compute(self._known)

    def know_here(self, **quantities: Unpack[Quantities]) -> None:
        """Compute the terms that wait for these quantities alone, and forget them again.

        For what is computed on a branch: only there may it be used before the branch is joined.
        """
        self._compute(self._known | quantities)

    def finish(self) -> Terms:
        """Return all terms by name.

        Raises:
            KeyError: a term takes what the step never told.
        """
        for term in self._waiting:
            missing = [name for name in term.takes if name not in self._known]
            raise KeyError(f"the step does not compute {missing}, which term {term.name} takes")
        return self.values

    def _compute(self, known: dict[str, Any]) -> None:
        ready = [term for term in self._waiting if known.keys() >= set(term.takes)]
        self._waiting = [term for term in self._waiting if term not in ready]
        for term in ready:
            self.values[term.name] = term.compute(known)
