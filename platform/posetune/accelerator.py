"""The device that a trial with `resources.gpu` trains on, and how much of its memory was taken."""

from __future__ import annotations

from typing import NamedTuple, Protocol

__all__ = ["CUDA", "Accelerator", "DeviceMemory"]


class DeviceMemory(NamedTuple):
    """Bytes of a device."""

    peak: int
    """The most that this process has held since `Accelerator.reset`."""
    beside: int
    """What is taken now and not held by this process' tensors: its context, and other processes."""
    total: int


class Accelerator(Protocol):
    """A kind of device."""

    name: str

    def is_there(self) -> bool:
        """Whether this process sees one."""

    def describe(self) -> str:
        """Return the model of the device, for people."""

    def reset(self) -> None:
        """Begin to measure anew."""

    def memory(self) -> DeviceMemory:
        """Return what was taken so far."""


class _Cuda:
    """Torch's CUDA; the peak counts what its allocator reserved, not what tensors filled of it."""

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
