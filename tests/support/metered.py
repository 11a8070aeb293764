"""A toy whose device counts energy; a worker of Ray finds a copy of this module on its path."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from posetune.accelerator import Accelerator
from posetune.api import TrialContext
from posetune.testing.toy import Toy, ToyDevice

__all__ = ["MeteredDevice", "MeteredToy"]


class MeteredDevice(ToyDevice):
    """A toy's device that takes 600 J for each step, and whose counter began long ago."""

    joules = 1e6

    def energy_j(self, devices: int) -> float | None:
        return devices * self.joules


class MeteredToy(Toy):
    """A toy that trains on it."""

    accelerator: ClassVar[Accelerator] = MeteredDevice()

    def start(self, config: Any, context: TrialContext) -> None:
        def step(done: int, total: int, note: str = "") -> None:
            MeteredDevice.joules += 600.0
            context.progress(done, total, note)

        super().start(config, dataclasses.replace(context, progress=step))
