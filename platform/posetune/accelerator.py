"""Describes the device that a trial with `resources.gpu` trains on, and measures what it takes.

It also says on how many processor threads torch works.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

__all__ = ["CUDA", "Accelerator", "DeviceMemory", "nvidia_energy_j", "processor_threads"]


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

    def energy_j(self, devices: int) -> float | None:
        """Return what the first devices of this process have taken since any fixed moment.

        In joules, of the whole devices; None where one of them has no counter.

        Args:
            devices: number of them.
        """


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

    def energy_j(self, devices: int) -> float | None:
        return nvidia_energy_j(_identities(devices))


@functools.cache
def _identities(devices: int) -> tuple[str, ...]:
    """Return what NVML calls the first devices of this process; CUDA is asked once.

    torch and NVML number devices differently. A part of a device (MIG) has an identity of its own,
    by which NVML finds no counter.
    """
    import torch

    return tuple(f"GPU-{torch.cuda.get_device_properties(i).uuid}" for i in range(devices))


def nvidia_energy_j(identities: Sequence[str]) -> float | None:
    """Return what NVIDIA's devices have taken since their driver was loaded, in joules.

    None where one of them, or the machine, has no counter; GPUs from Volta on have one.

    Args:
        identities: the devices as NVML names them, e.g. `GPU-8932f937-d72c-...`.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        devices = [pynvml.nvmlDeviceGetHandleByUUID(name) for name in identities]
        taken_mj = sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(one) for one in devices)
        return float(taken_mj) / 1000
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


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
