"""Runs parts of a step beside each other on the GPU, as CUDA streams.

Outside a recording (`selfpose.cuda.graph`) nothing here does anything: Python launches one kernel
after the other. In a recording, what is launched in a `branch` goes to a stream of its own, so
that the GPU fills up with it where the rest leaves it idle: many kernels of a step are too small
for the whole GPU, and those that wait for memory go well with those that multiply. Autograd runs a
gradient on the stream of its value, so the backward pass branches in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["Streams"]


class Streams:
    """The streams of one recorded step, by the names of its branches."""

    def __init__(self) -> None:
        """Prepare; no stream exists before a recording."""
        self._streams: dict[str, torch.cuda.Stream] | None = None
        self._kept: list[object] = []
        """Tensors that two streams use: their memory must not be given to others meanwhile."""

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Run branches on streams of their own inside the block, while a step is recorded."""
        self._streams = {}
        # Omega's weights get gradients from two branches, which autograd would warn of.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        try:
            yield
        finally:
            torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(True)
            self._streams = None
            self._kept.clear()

    @contextmanager
    def branch(self, name: str, *given: Tensor | None) -> Iterator[None]:
        """Launch what is inside on a branch, after all that was launched so far.

        Args:
            name: of the branch; several parts of one branch run one after the other.
            given: what the branch takes from outside.
        """
        if self._streams is None:
            yield
            return
        if name not in self._streams:
            self._streams[name] = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream = self._streams[name]
        stream.wait_stream(torch.cuda.current_stream())
        self._kept.extend(given)
        with torch.cuda.stream(stream):
            yield

    def join(self, name: str, *results: Tensor | None) -> None:
        """Let what is launched from here on wait for a branch.

        Args:
            name: of the branch.
            results: what is taken from it.
        """
        if self._streams is not None and name in self._streams:
            torch.cuda.current_stream().wait_stream(self._streams[name])
            self._kept.extend(results)
