"""How gradients become new weights: Adam, clipping of each network, learning rates that decay.

Nothing here waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from selfpose.training.data_parallel import ALONE, Team

__all__ = ["CosineRates", "apply_gradients", "find_gradients", "make_optimiser", "take_step"]

ADAM_BETAS = (0.5, 0.999)


def make_optimiser(groups: Iterable[tuple[nn.Module, float]]) -> torch.optim.Optimizer:
    """Return the paper's Adam over networks, each with its own learning rate."""
    parameters = [{"params": list(network.parameters()), "lr": rate} for network, rate in groups]
    return torch.optim.Adam(parameters, betas=ADAM_BETAS, fused=True)


class CosineRates:
    """Lets every learning rate follow half a cosine from its full value to zero."""

    def __init__(self, optimisers: Iterable[torch.optim.Optimizer], *, decay_steps: int) -> None:
        """Remember the present rates as the full ones.

        Args:
            optimisers: their rates are numbers now, and may become tensors later.
            decay_steps: steps until the rates are zero; 0 leaves them as they are.
        """
        self._optimisers = list(optimisers)
        self._full = [float(group["lr"]) for group in self._groups()]
        self._decay_steps = decay_steps

    def set(self, steps: int) -> None:
        """Set the rates of a step by its number alone, whatever they were before."""
        if not self._decay_steps:
            return
        done = min(1.0, steps / self._decay_steps)
        for group, full in zip(self._groups(), self._full, strict=True):
            rate = full * (1.0 + math.cos(math.pi * done)) / 2.0
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _groups(self) -> list[dict[str, Any]]:
        """Return the present groups: an optimiser that loads a state makes others."""
        return [group for optimiser in self._optimisers for group in optimiser.param_groups]


def take_step(
    optimiser: torch.optim.Optimizer, loss: Tensor, *, clip: float, team: Team = ALONE
) -> None:
    """Take the gradient of `loss` in the optimiser's networks and a step against it."""
    find_gradients(optimiser, loss, team=team)
    apply_gradients(optimiser, clip=clip)


def find_gradients(
    optimiser: torch.optim.Optimizer, loss: Tensor, *, team: Team = ALONE, keep_graph: bool = False
) -> None:
    """Give the optimiser's networks, and no other, the gradient of `loss`.

    Args:
        optimiser: has the networks.
        loss: to be minimised, ().
        team: the gradient is the mean of all processes'.
        keep_graph: another loss of the same graph is still to be differentiated.
    """
    optimiser.zero_grad(set_to_none=True)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    torch.autograd.backward(loss, inputs=parameters, retain_graph=keep_graph)
    team.average(p.grad for p in parameters if p.grad is not None)


def apply_gradients(optimiser: torch.optim.Optimizer, *, clip: float) -> None:
    """Clip and step.

    Each network is clipped by itself, so that a large gradient of Lambda's does not shrink Phi's.
    """
    for group in optimiser.param_groups:
        nn.utils.clip_grad_norm_(group["params"], clip)
    optimiser.step()
