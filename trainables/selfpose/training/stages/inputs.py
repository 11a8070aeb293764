"""Defines what a stage is built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

__all__ = ["StageInputs"]


@dataclass(frozen=True)
class StageInputs:
    """Everything that may change a stage's product; all of it is in the product's key."""

    fields: Mapping[str, Any]
    """Value of each field of the configuration that the stage reads, by its dotted name."""
    seed: int
    """Seed of first weights, of the order of the data and of all else that is drawn."""
    store: Path
    """Folder of the prepared data."""

    @property
    def device(self) -> torch.device:
        """The device that a stage trains on: the GPU where there is one."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
