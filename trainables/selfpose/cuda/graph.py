"""A training step recorded once as a CUDA graph and replayed: the GPU no longer waits for Python.

A step at the paper's size launches some two thousand kernels, which takes the processor longer than
the GPU needs to run them. The first few steps run as they are, so that everything which is made at
first use exists; the next is recorded. From then on a step copies its batch to where the recording
reads it. Whatever else changes between steps has to be a tensor that is changed in place (learning
rates, the amount of noise) or a generator that the graph knows, and whatever changes which kernels
run is a phase with a recording of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from selfpose.cuda.streams import Streams

__all__ = ["PLAIN_STEPS", "RecordedStep"]

Given = tuple[Tensor | None, ...]
Step = Callable[[Given], Tensor]

PLAIN_STEPS = 3
"""Steps that run as they are before the one that is recorded."""


class RecordedStep:
    """The recording of a step, made when the step was taken often enough."""

    def __init__(
        self, *, device: torch.device, generators: Sequence[torch.Generator], streams: Streams
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            device: a CUDA device.
            generators: of the device, those that the step draws from.
            streams: what the step branches with; its branches run beside each other only in a
                recording.
        """
        self._generators, self._streams = generators, streams
        # What other parts wait for goes before the branches beside it.
        self._stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
        self._phase: object = None
        self.forget()

    def forget(self) -> None:
        """Drop the recording: tensors that it uses were replaced."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._given: Given = ()
        self._plain_steps = 0

    def take(self, step: Step, batch: Given, *, phase: object) -> Tensor:
        """Take a step on a batch; the result is overwritten by the next one.

        Args:
            step: from a batch on the device to one tensor; waits for nothing. Always the same.
            batch: of the same shapes in every step of a phase.
            phase: what tells one recording from another.
        """
        if phase != self._phase:
            self.forget()
            self._phase = phase
        if self._graph is None and self._plain_steps < PLAIN_STEPS:
            self._plain_steps += 1
            return self._run_plainly(step, batch)
        graph = self._graph or self._record(step, batch)
        for into, given in zip(self._given, batch, strict=True):
            if into is not None and given is not None:
                into.copy_(given, non_blocking=True)
        graph.replay()
        return self._result

    def _run_plainly(self, step: Step, batch: Given) -> Tensor:
        """Run on the stream of the recording, where gradients are then expected too."""
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            result = step(batch)
        here.wait_stream(self._stream)
        return result

    def _record(self, step: Step, batch: Given) -> torch.cuda.CUDAGraph:
        self._given = tuple(None if given is None else given.clone() for given in batch)
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with (
            self._streams.recording(),
            torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
        ):
            self._result = step(self._given)
        self._graph = graph
        return graph
