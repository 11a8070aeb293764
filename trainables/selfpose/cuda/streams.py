"""Parts of a step that may run beside each other on the GPU.

Outside a recording (`selfpose.cuda.graph`) nothing here does anything: Python launches one kernel
after the other. In a recording, what is launched `beside` the rest goes to a stream of its own, so
that the GPU fills up with it where the rest leaves it idle: many kernels of a step are too small
for the whole GPU, and those that wait for memory go well with those that multiply. Autograd runs a
gradient on the stream of its value, so the backward pass branches in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["beside", "meet", "recording"]

_streams: dict[str, torch.cuda.Stream] | None = None
_kept: list[object] = []
"""Tensors that two streams use: their memory must not be given away while the other may use it."""


@contextmanager
def recording() -> Iterator[None]:
    """Let branches be branches meanwhile."""
    global _streams
    _streams = {}
    # Omega's weights get gradients from two branches, which autograd would warn of.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    try:
        yield
    finally:
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(True)
        _streams = None
        _kept.clear()


@contextmanager
def beside(name: str, *given: Tensor | None) -> Iterator[None]:
    """Launch what is inside on a branch, after all that was launched so far.

    Args:
        name: of the branch; several parts of one branch run one after the other.
        given: what the branch takes from outside.
    """
    if torch.compiler.is_compiling() or _streams is None:
        yield
        return
    if name not in _streams:
        _streams[name] = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream = _streams[name]
    stream.wait_stream(torch.cuda.current_stream())
    _kept.extend(given)
    with torch.cuda.stream(stream):
        yield


def meet(name: str, *results: Tensor | None) -> None:
    """Let what is launched from here on wait for a branch.

    Args:
        name: of the branch.
        results: what is taken from it.
    """
    if not torch.compiler.is_compiling() and _streams is not None and name in _streams:
        torch.cuda.current_stream().wait_stream(_streams[name])
        _kept.extend(results)
