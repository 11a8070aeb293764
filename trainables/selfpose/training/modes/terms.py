"""The loss terms of one training step, each computed as soon as all that it takes is known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

import torch
from torch import Tensor

from selfpose.config import SelfPoseConfig
from selfpose.method.losses import LossTerm
from selfpose.method.quantities import Quantities, needs_of

__all__ = ["Losses", "Terms", "Weights", "bone_share", "computed_terms"]

Terms = dict[str, Tensor]
"""Terms before weighing, each (), by name; beside them what else a step reports."""


def computed_terms(config: SelfPoseConfig) -> tuple[LossTerm, ...]:
    """Return the terms that a step computes: those with a weight, and those that cost nothing."""
    weighted = config.loss_terms
    return tuple(term for term in config.known_terms if term.always or term in weighted)


def bone_share(config: SelfPoseConfig, steps: int) -> float:
    """Return how much of its weight the term `bone` has after so many steps, 0 to 1."""
    whole_at = config.lifting.bone_warmup_steps
    if steps >= whole_at:
        return 1.0
    return max(0.0, 2.0 * steps / whole_at - 1.0)


class Weights:
    """The weight of each term at a step."""

    def __init__(self, config: SelfPoseConfig, device: torch.device) -> None:
        self._config = config
        full = config.loss_weights.by_name()
        self.by_name: dict[str, float | Tensor] = {**full}
        self._full_bone = full["bone"]
        self._bone: Tensor | None = None
        """The weight of `bone` where it changes: a step that was recorded reads it there."""
        if config.lifting.bone_warmup_steps and self.by_name["bone"]:
            self._bone = self.by_name["bone"] = torch.zeros((), device=device)

    def set(self, steps: int) -> None:
        """Set the weights of the step that follows so many."""
        if self._bone is not None:
            self._bone.fill_(self._full_bone * bone_share(self._config, steps))


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
