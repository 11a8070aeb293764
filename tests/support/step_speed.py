"""How fast a trial's step is on its device, beside what the device could do.

`make bench-gpu` measures the paper's size on CUDA with this; a test runs it small on the CPU.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from posetune.api import TrialContext, silent
from selfpose.config import SelfPoseConfig
from selfpose.cuda.graph import PLAIN_STEPS
from selfpose.training.modes.complete import CompleteMode
from selfpose.training.reference import ReferenceTraining
from selfpose.training.trial import Trial

__all__ = [
    "WAYS",
    "ShortTraining",
    "StepSpeed",
    "Work",
    "copy_rate",
    "count_work",
    "largest_batch",
    "matrix_rate",
    "measure_step",
    "time_each",
    "train_shortly",
]

_MATRIX_SIDE = {"cuda": 8192, "cpu": 512}
_COPIED = {"cuda": 2**30, "cpu": 2**27}
"""Bytes, of which no cache holds much."""
_REPEATED = 20
"""How often what takes microseconds is done between two looks at the clock."""


@dataclass(frozen=True)
class StepSpeed:
    """Seconds, operations (a multiplication and an addition are two) and bytes of one step."""

    ours_s: float
    """On CUDA replayed, with the images on the device."""
    plain_s: float
    """The plain twin as torch runs it by default: on CUDA its convolutions round to TF32."""
    exact_s: float | None
    """The plain twin in whole float32; None where the default is that."""
    unrecorded_s: float | None
    """Ours, each kernel launched from Python; None where nothing is replayed."""
    operations: float
    """Of convolutions and matrix products, none of which could be left out."""
    matrix_rate: float
    """Operations per second of large matrix products, bf16 on CUDA and float32 elsewhere."""
    moved_bytes: float
    """What they read and write, in the precision of `matrix_rate`."""
    copy_rate: float
    """Bytes per second that copying a large tensor reads and writes."""
    renderer_s: float
    """Drawing the batch, forward and backward; on CUDA without launches from Python."""
    copy_s: float
    """Reading and writing as many pixels once."""
    input_s: float
    """Fetching a batch of images that are kept on the device."""
    from_store_s: float
    """A step with the images left in the store."""
    peak_bytes: int
    """GPU memory that torch held with the images left in the store; 0 on a CPU."""

    @property
    def share_of_rate(self) -> float:
        """Which part of the matrix rate the step keeps up."""
        return self.operations / self.ours_s / self.matrix_rate

    @property
    def share_of_copying(self) -> float:
        """Which part of the rate of copying it keeps up."""
        return self.moved_bytes / self.ours_s / self.copy_rate

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        shares = {
            "share_of_rate": self.share_of_rate,
            "share_of_copying": self.share_of_copying,
        }
        return {**asdict(self), **shares}


def measure_step(
    config: SelfPoseConfig,
    context: TrialContext,
    *,
    rounds: int = 5,
    keep: Callable[[dict[str, Any]], None] = lambda figures: None,
) -> StepSpeed:
    """Measure a complete trial's step beside the plain twin's, taking turns; medians.

    Args:
        config: of mode complete; `steps_per_epoch` steps are timed together.
        context: device, store and stage products.
        rounds: of taking turns, after one to warm up.
        keep: is given all that is known after each part, in case the rest is cut off.
    """
    device, figures = torch.device(context.device), {}

    def add(**found: Any) -> None:
        figures.update(found)
        keep(dict(figures))

    add(peak_bytes=_peak_bytes(config, context))  # while nothing else takes memory
    add(matrix_rate=matrix_rate(device), copy_rate=copy_rate(device))
    trial, from_store = Trial(config, context), Trial(config, context)
    _leave_images_in_store(from_store)
    plain, steps = ReferenceTraining(trial), config.steps_per_epoch
    works: dict[str, Callable[[], object]] = {
        "ours_s": lambda: trial.train(silent),
        "plain_s": lambda: [plain.step() for _ in range(steps)],
        "from_store_s": lambda: from_store.train(silent),
    }
    if device.type == "cuda":
        unrecorded = Trial(config.model_copy(update={"replay": False}), context)
        take_plainly = works["plain_s"]
        works["exact_s"] = lambda: _without_tf32(take_plainly)
        works["unrecorded_s"] = lambda: unrecorded.train(silent)
    seconds = dict(zip(works, _take_turns(list(works.values()), device, rounds), strict=True))
    add(exact_s=None, unrecorded_s=None)
    add(**{name: taken / steps for name, taken in seconds.items()})
    kept = _complete(trial).feed
    picks = itertools.cycle(_picks(len(kept), config.batch_size))
    small = [*_drawing(trial), lambda: kept.fetch(next(picks))]
    names = ("renderer_s", "copy_s", "input_s")
    taken = _take_turns([_repeated(work) for work in small], device, rounds)
    add(**{name: one / _REPEATED for name, one in zip(names, taken, strict=True)})
    work = count_work(config, context)
    size = 2 if device.type == "cuda" else 4
    add(operations=work.operations, moved_bytes=work.numbers * size)
    return StepSpeed(**figures)


@dataclass(frozen=True)
class ShortTraining:
    """Where one epoch ended, on the validation frames; no mirrors unless it says so."""

    seed: int
    way: str
    seconds: float
    p_mpjpe_mm: float
    p_mpjpe_mirrored_mm: float


WAYS: dict[str, dict[str, Any]] = {"ours": {}, "plain": {"replay": False, "bf16": False}}
"""`plain` has no bf16 and torch's own networks, launched one by one; both draw alike."""


def train_shortly(
    config: SelfPoseConfig, context: TrialContext, *, seeds: Sequence[int]
) -> list[ShortTraining]:
    """Train one epoch with each seed in each of `WAYS`: what is fast has to end within the spread.

    Args:
        config: `steps_per_epoch` steps are trained.
        context: device, store and stage products; its seed is not used.
        seeds: of the trials.
    """
    device, found = torch.device(context.device), []
    for seed, (way, changes) in itertools.product(seeds, WAYS.items()):
        trial = Trial(config.model_copy(update=changes), replace(context, seed=seed))
        seconds = _seconds(lambda trial=trial: trial.train(silent), device)  # type: ignore[misc]
        scores = trial.validate()
        keys = ("val/p_mpjpe_mm", "val/p_mpjpe_mirrored_mm")
        found.append(ShortTraining(seed, way, seconds, *(scores[key] for key in keys)))
    return found


class Work(NamedTuple):
    """What the convolutions and matrix products of a step compute, and what they need for it."""

    operations: float
    """A multiplication and an addition are two."""
    numbers: float
    """That each of them reads and writes: moved at least, even if all else is done on the way."""


def count_work(config: SelfPoseConfig, context: TrialContext) -> Work:
    """Count the work of one step.

    Ours computes no gradient that nobody takes (none for D's weights on the way to Phi, none for
    the frozen flow), no elevation where only depths are asked, and reads no skeleton twice. What
    the fused layers add to fill up channels is not counted.
    """
    changes = {"replay": False, "steps_per_epoch": 1}
    trial = Trial(config.model_copy(update=changes), context)
    with _Counting() as counted:  # type: ignore[no-untyped-call]
        trial.train(silent)
    return Work(counted.operations, counted.numbers)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts; torch's own counter follows modules, which a gradient in a gradient forbids."""

    operations = numbers = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=out)
            outs = out if isinstance(out, tuple) else (out,)
            tensors = (*_read(func, args), *outs)
            self.numbers += sum(t.numel() for t in tensors if isinstance(t, Tensor))
        return out


def _read(func: Any, args: Any) -> Any:
    """Return what an operation reads: a convolution's gradient only what those it gives need."""
    if func.overloadpacket is not torch.ops.aten.convolution_backward:
        return args
    (grad, x, weight), (to_x, to_weight, _) = args[:3], args[-1]
    return grad, x if to_weight else None, weight if to_x else None


def matrix_rate(device: torch.device) -> float:
    """Return the operations per second of a large matrix product, the best of some."""
    side = _MATRIX_SIDE[device.type]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    factor = torch.randn(side, side, device=device, dtype=dtype)
    best_s = min(_seconds(lambda: factor @ factor, device) for _ in range(10))
    return 2.0 * side**3 / best_s


def copy_rate(device: torch.device) -> float:
    """Return the bytes per second that copying a large tensor reads and writes, best of some."""
    source = torch.zeros(_COPIED[device.type], dtype=torch.uint8, device=device)
    out = torch.empty_like(source)
    best_s = min(_seconds(lambda: out.copy_(source), device) for _ in range(10))
    return 2.0 * len(source) / best_s


def largest_batch(config: SelfPoseConfig, context: TrialContext, *, most: int) -> int:
    """Return the largest batch that trains: `config.batch_size` doubled until memory is full.

    Or until it would pass `most`: where twice the result does, larger ones may train as well. Only
    steps that are not recorded yet are taken. To be called before anything else holds memory.
    """
    batch, fits = config.batch_size, 0
    while batch <= most:
        _give_memory_back()
        changes = {"batch_size": batch, "steps_per_epoch": PLAIN_STEPS}
        try:
            Trial(config.model_copy(update=changes), context).train(silent)
        except torch.cuda.OutOfMemoryError:
            break
        batch, fits = 2 * batch, batch
    return fits


def _peak_bytes(config: SelfPoseConfig, context: TrialContext) -> int:
    """Return the most GPU memory that training takes, its images read from the store."""
    if not torch.cuda.is_available():
        return 0
    _give_memory_back()
    torch.cuda.reset_peak_memory_stats()
    trial = Trial(config, context)
    _leave_images_in_store(trial)
    trial.train(silent)
    return torch.cuda.max_memory_reserved()


def _give_memory_back() -> None:
    gc.collect()  # trials that have ended
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _drawing(trial: Trial) -> tuple[Callable[[], object], ...]:
    joints_bj2 = trial.prior_nj2[: trial.config.batch_size].clone().requires_grad_()
    renderer = _complete(trial).renderers.skeleton
    image_b1ss: Tensor = renderer(joints_bj2).detach()
    out_b1ss = torch.empty_like(image_b1ss)

    def draw() -> object:
        return torch.autograd.grad(renderer(joints_bj2), joints_bj2, image_b1ss)

    return _recorded(draw), _recorded(lambda: out_b1ss.copy_(image_b1ss))


def _recorded(work: Callable[[], object]) -> Callable[[], object]:
    """Return what replays the work on CUDA as one graph: then its launches do not count."""
    if not torch.cuda.is_available():
        return work
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()

    def replay(kept: Callable[[], object] = work) -> None:  # with the tensors that the graph uses
        graph.replay()

    return replay


def time_each(
    works: Sequence[Callable[[], object]], device: torch.device, *, rounds: int
) -> list[float]:
    """Return the median seconds of each work, on CUDA without launches from Python."""
    repeated = [_repeated(_recorded(work)) for work in works]
    return [seconds / _REPEATED for seconds in _take_turns(repeated, device, rounds)]


def _repeated(work: Callable[[], object]) -> Callable[[], object]:
    """Return what does the work some times without waiting between."""

    def repeat() -> None:
        for _ in range(_REPEATED):
            work()

    return repeat


def _without_tf32(work: Callable[[], object]) -> None:
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        work()


def _picks(rows: int, count: int) -> Tensor:
    return torch.randint(rows, (100, count), generator=torch.Generator().manual_seed(0))


def _complete(trial: Trial) -> CompleteMode:
    """Return what a complete trial trains: only that has images and renderers."""
    if not isinstance(trial.mode, CompleteMode):
        raise TypeError(f"mode {trial.config.mode} has no skeletons")
    return trial.mode


def _leave_images_in_store(trial: Trial) -> None:
    mode = _complete(trial)
    mode.feed = replace(mode.feed, images_nss3=None, masks_nss=None)


def _take_turns(
    works: list[Callable[[], object]], device: torch.device, rounds: int
) -> list[float]:
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds + 1):
        for work, taken in zip(works, seconds, strict=True):
            taken.append(_seconds(work, device))
    return [statistics.median(taken[1:]) for taken in seconds]


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
