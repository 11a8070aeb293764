"""How networks start: from a seed, the convolutional ones by KeypointGAN's rule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["draw_small_weights", "seeded"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw first weights from torch's global generator at `seed`; put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def draw_small_weights(network: nn.Module) -> None:
    """Draw every convolution weight from N(0, .02) and set the biases to zero.

    Uses torch's global generator, which the process entry seeds.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
