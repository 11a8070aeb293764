"""Trains one or two networks alone, before they are trained together with the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from selfpose.training.checkpoint import TrainingState
from selfpose.training.optimiser import CosineRates, make_optimiser, take_step
from selfpose.training.stages.part import StagePart

__all__ = ["Pretraining", "pretrain", "save_network"]


@dataclass(frozen=True)
class Pretraining:
    """How a network is trained alone: by Adam, whose learning rate falls along a cosine."""

    steps: int
    """Number of steps."""
    batch_size: int
    """Number of poses or images in each step."""
    learning_rate: float
    """Adam's learning rate at the first step."""
    gradient_clip: float
    """Largest norm of the network's gradient."""

    @classmethod
    def of(cls, fields: Mapping[str, Any], *, steps: int) -> Pretraining:
        """Return the settings that the fields of a configuration give, by name."""
        return cls(
            steps=steps,
            batch_size=fields["batch_size"],
            learning_rate=fields["pretrain_learning_rate"],
            gradient_clip=fields["gradient_clip"],
        )


def pretrain(
    networks: Sequence[nn.Module],
    loss: Callable[[], Tensor],
    *,
    settings: Pretraining,
    generator: torch.Generator,
    part: StagePart,
) -> None:
    """Train networks.

    Args:
        networks: changed in place; the gradient of each is clipped by itself.
        loss: draws a batch and returns their error on it, (), no unit.
        settings: steps, rate and clipping.
        generator: all that `loss` draws from.
        part: takes the steps.
    """
    optimiser = make_optimiser([(network, settings.learning_rate) for network in networks])
    rates = CosineRates([optimiser], decay_steps=settings.steps)

    def step(number: int) -> Tensor:
        rates.set(number)
        value = loss()
        take_step(optimiser, value, clip=settings.gradient_clip)
        return value

    named = {str(place): network for place, network in enumerate(networks)}
    state = TrainingState(named, {"adam": optimiser}, {"draws": generator})
    part.run(step, steps=settings.steps, state=state)


def save_network(network: nn.Module, file: Path) -> None:
    """Write a network's weights into a file."""
    save_file({name: t.cpu().contiguous() for name, t in network.state_dict().items()}, file)
