"""Describes the device that a trial with `resources.gpu` trains on and measures its memory.

It also says on how many processor threads torch works.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

__all__ = ["CUDA", "Accelerator", "DeviceMemory", "processor_threads"]


class DeviceMemory(NamedTuple):
    """Says how much of a device's memory is used, in bytes."""

    peak: int
    """Highest number of bytes that this process has held since `Accelerator.reset`."""
    beside: int
    """Bytes that are used now but not by this process' tensors: its context and other processes."""
    total: int
    """Bytes of the whole device."""


class Accelerator(Protocol):
    """Defines what the platform asks of a kind of device."""

    name: str
    """Name of the kind of device, as torch spells it, e.g. `cuda`."""

    def is_there(self) -> bool:
        """Return whether this process sees a device of this kind."""

    def describe(self) -> str:
        """Return the model of the device, for people."""

    def reset(self) -> None:
        """Free what is unused and begin to measure the peak again."""

    def memory(self) -> DeviceMemory:
        """Return how much memory was used since `reset`."""


class _Cuda:
    """Measures CUDA devices through torch.

    The peak counts the memory that torch's allocator reserved, which is more than tensors fill.
    """

    name = "cuda"

    def is_there(self) -> bool:
        import torch

        return torch.cuda.is_available()

    def describe(self) -> str:
        import torch

        return torch.cuda.get_device_name()

    def reset(self) -> None:
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def memory(self) -> DeviceMemory:
        import torch

        free, total = torch.cuda.mem_get_info()
        beside = total - free - torch.cuda.memory_reserved()
        return DeviceMemory(torch.cuda.max_memory_reserved(), max(0, beside), total)


CUDA: Accelerator = _Cuda()
"""The accelerator of trainables that name no other."""


@contextmanager
def processor_threads(count: int) -> Iterator[None]:
    """Let torch work on so many processor threads in a block, and on as many as before then.

    Nothing is imported for it: a trainable that does not use torch does not pay for it.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
