"""What makes a training step fast on its device: the only module that imports `selfpose.cuda`.

On CUDA a step is recorded once and replayed: its networks and renderers are fused, and parts of it
run beside each other. On a CPU, in several processes, and where `replay` is false, torch's own
operations run, one after the other: launched from Python, they are faster than fused ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from selfpose.cuda import kernels
from selfpose.cuda.graph import PLAIN_STEPS, RecordedStep
from selfpose.cuda.layers import fuse
from selfpose.cuda.rendering import fuse_renderer
from selfpose.cuda.streams import Streams
from selfpose.method.renderer import SkeletonRenderer

__all__ = [
    "PLAIN",
    "Acceleration",
    "Branches",
    "OneStream",
    "accelerate",
    "accelerate_renderer",
    "check_kernels",
]


class Branches(Protocol):
    """How a step says which of its parts may run beside the rest."""

    def branch(self, name: str, *given: Tensor | None) -> AbstractContextManager[None]:
        """Launch what is inside on the branch of that name, which takes what is `given`."""

    def join(self, name: str, *results: Tensor | None) -> None:
        """Let what is launched from here on wait for a branch and its results."""


class OneStream:
    """Runs everything one after the other."""

    @contextmanager
    def branch(self, name: str, *given: Tensor | None) -> Iterator[None]:
        """Run what is inside where it stands."""
        yield

    def join(self, name: str, *results: Tensor | None) -> None:
        """Wait for nothing."""


@dataclass(frozen=True)
class Acceleration:
    """Runs a trial's steps: by a recorded CUDA graph, or plainly where there is none."""

    branches: Branches
    recording: RecordedStep | None

    def take(
        self,
        step: Callable[[tuple[Tensor | None, ...]], Tensor],
        batch: tuple[Tensor | None, ...],
        *,
        phase: object,
    ) -> Tensor:
        """Take a step on a batch; see `RecordedStep.take`."""
        if self.recording is None:
            return step(batch)
        return self.recording.take(step, batch, phase=phase)

    def forget(self) -> None:
        """Drop what was recorded: tensors that it uses were replaced."""
        if self.recording is not None:
            self.recording.forget()

    @property
    def first_steps(self) -> int:
        """How many steps take longer than all others."""
        return 1 if self.recording is None else PLAIN_STEPS + 2


PLAIN = Acceleration(branches=OneStream(), recording=None)


def accelerate(
    networks: Iterable[nn.Module],
    optimisers: Iterable[torch.optim.Optimizer],
    *,
    device: torch.device,
    generators: list[torch.Generator],
) -> Acceleration:
    """Prepare a trial's steps to be recorded on a CUDA device.

    Args:
        networks: the convolutional ones, already on the device; fused in place where kernels run.
        optimisers: their rates become tensors, so that a recorded step sees them change.
        device: a CUDA device.
        generators: of the device, those that the steps draw from.
    """
    if kernels.run_on(device):
        for network in networks:
            fuse(network)
    for optimiser in optimisers:
        _make_recordable(optimiser)
    streams = Streams()
    return Acceleration(
        streams, RecordedStep(device=device, generators=generators, streams=streams)
    )


def accelerate_renderer(renderer: SkeletonRenderer, device: torch.device) -> SkeletonRenderer:
    """Return the renderer, which draws by kernels from now on where they run on the device."""
    if kernels.run_on(device):
        fuse_renderer(renderer)
    return renderer


def check_kernels(device: torch.device) -> None:
    """Refuse a node that cannot build the kernels for its GPU.

    Raises:
        BadInputError: the kernels are for this device, and nothing compiles them here.
    """
    kernels.check_compiler(device)


def _make_recordable(optimiser: torch.optim.Optimizer) -> None:
    """Let the optimiser's steps be part of a CUDA graph: its rates become tensors."""
    for group in optimiser.param_groups:
        group["lr"] = torch.tensor(group["lr"], device=group["params"][0].device)
        group["capturable"] = True
