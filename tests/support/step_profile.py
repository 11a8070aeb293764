"""What a trial's step spends its time on: each convolution beside its own rate, and the kernels.

A convolution's own rate is what the device could do with it at best: its operations at the rate of
large matrix products, or what it reads and writes at the rate of a large copy, whichever takes
longer. `make bench-gpu` profiles the paper's size on CUDA with this; a test does so small on the
CPU. The Triton kernels for thin images are no operations of torch's: they stand among the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from support.step_speed import copy_rate, matrix_rate, time_each
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from posetune.api import TrialContext, silent
from selfpose.config import SelfPoseConfig
from selfpose.cuda.graph import PLAIN_STEPS
from selfpose.training.trial import Trial

__all__ = ["Product", "StepKernels", "profile_kernels", "profile_products"]

MOST_KERNELS = 60


@dataclass(frozen=True)
class Product:
    """A convolution or matrix product of a step, or a gradient of one, timed by itself."""

    operation: str
    shapes: tuple[tuple[int, ...], ...]
    """Of the tensors that it is given."""
    dtype: str
    count: int
    """How often a step does it."""
    operations: float
    """A multiplication and an addition are two; of one of them."""
    seconds: float
    """Of one of them, launched without Python."""
    least_s: float
    """What it would take at its own rate."""

    @property
    def share(self) -> float:
        """Return which part of its own rate it keeps up."""
        return self.least_s / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        lost_s = self.count * (self.seconds - self.least_s)
        told = {"share": self.share, "is_below_half": self.share < 0.5, "lost_s": lost_s}
        return {**asdict(self), **told}


@dataclass(frozen=True)
class StepKernels:
    """What the device did in a step; seconds."""

    span_s: float
    """From the begin of the first kernel to the end of the last."""
    busy_s: float
    """While at least one kernel ran; in the rest the device waited."""
    sum_s: float
    """Of all kernels; more than `busy_s` where branches run beside each other."""
    kernels: tuple[dict[str, Any], ...]
    """Name, seconds and count in a step of those that take longest."""


def profile_products(config: SelfPoseConfig, context: TrialContext) -> list[Product]:
    """Time each convolution and matrix product of a step by itself, what loses most first.

    Those of the first step, which is not recorded: its networks are fused as in a recorded one.
    """
    device = torch.device(context.device)
    trial = Trial(config.model_copy(update={"steps_per_epoch": 1}), context)
    with _Noting() as noted:  # type: ignore[no-untyped-call]
        trial.train(silent)
    rates = matrix_rate(device), copy_rate(device)
    products = []
    for (name, shapes, dtype, _), (call, count) in noted.calls.items():
        work, operations, moved = _alone(call, device)
        (seconds,) = time_each([work], device, rounds=3)
        least_s = max(operations / rates[0], moved / rates[1])
        products.append(Product(name, shapes, dtype, count, operations, seconds, least_s))
    return sorted(products, key=lambda p: -p.count * (p.seconds - p.least_s))


def profile_kernels(config: SelfPoseConfig, context: TrialContext) -> StepKernels:
    """Profile some steps, recorded ones on CUDA; return what one of them did."""
    steps = PLAIN_STEPS + 2  # after so many one is recorded
    trial = Trial(config.model_copy(update={"steps_per_epoch": steps}), context)
    trial.train(silent)
    on_gpu = trial.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        trial.train(silent)
        if on_gpu:
            torch.cuda.synchronize()
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = [
        event
        for event in profiler.events()
        if event.device_type == kind and not getattr(event, "is_user_annotation", False)
    ]
    outer = [event for event in events if on_gpu or event.cpu_parent is None]
    spans = sorted((event.time_range.start, event.time_range.end) for event in outer)
    times: dict[str, list[float]] = {}
    for event in events:
        taken = event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
        times.setdefault(event.name, []).append(taken)
    longest = sorted(times, key=lambda name: -sum(times[name]))[:MOST_KERNELS]
    micro = 1e-6 / steps
    return StepKernels(
        span_s=micro * (max(end for _, end in spans) - spans[0][0]),
        busy_s=micro * _covered(spans),
        sum_s=micro * sum(end - start for start, end in spans),
        kernels=tuple(
            {"name": n[:200], "seconds": micro * sum(times[n]), "count": len(times[n]) / steps}
            for n in longest
        ),
    )


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Return how long at least one of the spans lasts, which are in the order of their starts."""
    covered, until = 0.0, float("-inf")
    for start, end in spans:
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered


class _Noting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each product once, with what it was given but for the values, and how often."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: dict[Any, tuple[Any, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket in flop_registry:
            given = tuple(_Given.of(value) for value in args)
            tensors = [value for value in given if isinstance(value, _Given)]
            shapes, rest = tuple(tensor.shape for tensor in tensors), repr((given, kwargs))
            key = (str(func.overloadpacket), shapes, str(tensors[0].dtype), rest)
            count = self.calls[key][1] if key in self.calls else 0
            self.calls[key] = (func, given, kwargs or {}), count + 1
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class _Given:
    """A tensor without its values."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, value: Any) -> Any:
        """Return what is kept of an argument."""
        if not isinstance(value, Tensor):
            return value
        return cls(tuple(value.shape), value.stride(), value.dtype)

    def made(self, device: torch.device) -> Tensor:
        """Return such a tensor with other values."""
        dense = 0 not in self.stride or 0 in self.shape
        options: dict[str, Any] = {"dtype": self.dtype, "device": device}
        empty = (
            torch.empty_strided(self.shape, self.stride, **options)
            if dense
            else torch.empty(self.shape, **options)
        )
        return empty.normal_()


def _alone(call: Any, device: torch.device) -> tuple[Callable[[], object], float, float]:
    """Return what does a product once more, its operations and the bytes that it moves."""
    func, given, kwargs = call
    args = tuple(v.made(device) if isinstance(v, _Given) else v for v in given)
    out = func(*args, **kwargs)
    operations = flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
    tensors = [t for t in (*args, *(out if isinstance(out, tuple) else (out,)))]
    moved = sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))
    return lambda: func(*args, **kwargs), float(operations), float(moved)
