"""How fast a trial's step is on its device, beside what the device could do.

`make bench-gpu` measures the paper's size on CUDA with this; a test runs it small on the CPU.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from posetune.api import TrialContext, silent
from selfpose.config import SelfPoseConfig
from selfpose.images import ImageFeed
from selfpose.renderer import SkeletonRenderer
from selfpose.testing.plain import PlainTraining
from selfpose.trial import Trial

__all__ = ["StepSpeed", "count_operations", "largest_batch", "matrix_rate", "measure_step"]

_MATRIX_SIDE = {"cuda": 8192, "cpu": 512}


@dataclass(frozen=True)
class StepSpeed:
    """Seconds, operations (a multiplication and an addition are two) and bytes of one step."""

    ours_s: float
    plain_s: float
    compiled_s: float | None
    """None where nothing compiles."""
    compiling_s: float | None
    replayed_s: float | None
    """Compiled and replayed as CUDA graphs; None also where that fails."""
    operations: float
    """Of convolutions and matrix products, none of which could be left out."""
    matrix_rate: float
    """Operations per second of large matrix products, bf16 on CUDA and float32 elsewhere."""
    renderer_s: float
    """Drawing the batch, forward and backward."""
    copy_s: float
    """Reading and writing as many pixels once."""
    input_s: float
    """Fetching a batch of images that are kept on the device."""
    reading_s: float
    """Fetching one from the store."""
    peak_bytes: int
    """GPU memory with the images left in the store; 0 on a CPU."""

    @property
    def share_of_rate(self) -> float:
        """Which part of the matrix rate the step keeps up."""
        return self.operations / self.ours_s / self.matrix_rate

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {**asdict(self), "share_of_rate": self.share_of_rate}


def measure_step(
    config: SelfPoseConfig, context: TrialContext, *, compile_too: bool = True, rounds: int = 5
) -> StepSpeed:
    """Measure a complete trial's step beside the plain twin's, taking turns; medians.

    Args:
        config: of mode complete; `steps_per_epoch` steps are timed together.
        context: device, store and stage products.
        compile_too: whether to measure a compiled step as well, where there is a compiler.
        rounds: of taking turns, after one to warm up.
    """
    device = torch.device(context.device)
    peak_bytes = _peak_bytes(config, context)  # while nothing else takes memory
    trial = Trial(config, context)
    plain = PlainTraining(trial)
    steps = config.steps_per_epoch
    works: list[Callable[[], object]] = [
        lambda: trial.train(silent),
        lambda: [plain.step() for _ in range(steps)],
    ]
    compiling_s = replayed_s = None
    compiled = Trial(config, context)
    if compile_too and compiled.compile():
        compiling_s = _seconds(lambda: compiled.train(silent), device)
        works.append(lambda: compiled.train(silent))
    ours_s, plain_s, *compiled_s = (s / steps for s in _take_turns(works, device, rounds))
    renderer_s, copy_s = _take_turns(list(_drawing(trial, device)), device, rounds)
    input_s, reading_s = _take_turns(list(_fetching(trial)), device, rounds)
    operations = count_operations(trial)
    if compiled_s:  # last: what it leaves behind disturbs nothing
        replayed_s = _replayed_s(config, context, rounds)
    return StepSpeed(
        ours_s=ours_s,
        plain_s=plain_s,
        compiled_s=compiled_s[0] if compiled_s else None,
        compiling_s=compiling_s,
        replayed_s=replayed_s,
        operations=operations,
        matrix_rate=matrix_rate(device),
        renderer_s=renderer_s,
        copy_s=copy_s,
        input_s=input_s,
        reading_s=reading_s,
        peak_bytes=peak_bytes,
    )


def count_operations(trial: Trial) -> float:
    """Count what the convolutions and matrix products of one step compute.

    Ours computes no gradient that nobody takes: none for D's weights on the way to Phi, none for
    the frozen flow, and no elevation where only depths are asked.
    """
    with FlopCounterMode(display=False) as counter:
        trial.train(silent)
    return counter.get_total_flops() / trial.config.steps_per_epoch


def matrix_rate(device: torch.device) -> float:
    """Return the operations per second of a large matrix product, the best of some."""
    side = _MATRIX_SIDE[device.type]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    factor = torch.randn(side, side, device=device, dtype=dtype)
    best_s = min(_seconds(lambda: factor @ factor, device) for _ in range(10))
    return 2.0 * side**3 / best_s


def largest_batch(config: SelfPoseConfig, context: TrialContext, *, most: int) -> int:
    """Return the largest batch that trains: `config.batch_size` doubled until memory is full.

    Or until it would pass `most`: where twice the result does, larger ones may train as well.
    """
    batch, fits = config.batch_size, 0
    while batch <= most:
        try:
            Trial(config.model_copy(update={"batch_size": batch}), context).train(silent)
        except torch.cuda.OutOfMemoryError:
            break
        batch, fits = 2 * batch, batch
    return fits


def _peak_bytes(config: SelfPoseConfig, context: TrialContext) -> int:
    """Return the most memory that training takes, its images read from the store."""
    trial = Trial(config, context)
    trial.feed = _unkept(trial)
    with _gpu_memory() as peak:
        trial.train(silent)
    return peak[0]


@contextmanager
def _gpu_memory() -> Any:
    """Give a list that holds, in the end, the most bytes that tensors took on the GPU."""
    peak = [0]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield peak
    if torch.cuda.is_available():
        peak[0] = torch.cuda.max_memory_allocated()


def _drawing(trial: Trial, device: torch.device) -> tuple[Callable[[], object], ...]:
    joints_bj2 = trial.prior_nj2[: trial.config.batch_size].clone().requires_grad_()
    pen: SkeletonRenderer = trial.pens.skeleton
    image_b1ss: Tensor = pen(joints_bj2).detach()
    out_b1ss = torch.empty_like(image_b1ss)

    def draw() -> None:
        torch.autograd.backward(pen(joints_bj2), image_b1ss, inputs=[joints_bj2])

    return draw, lambda: out_b1ss.copy_(image_b1ss)


def _replayed_s(config: SelfPoseConfig, context: TrialContext, rounds: int) -> float | None:
    """Return the seconds of a step replayed as CUDA graphs, or say why there are none."""
    trial = Trial(config, context)
    trial.compile(cuda_graphs=True)
    try:
        (seconds,) = _take_turns(
            [lambda: trial.train(silent)], torch.device(context.device), rounds
        )
    except RuntimeError as error:
        print(f"CUDA graphs: {str(error).splitlines()[0]}")  # noqa: T201 - beside the table
        return None
    return seconds / config.steps_per_epoch


def _fetching(trial: Trial) -> tuple[Callable[[], object], ...]:
    """Return what fetches a batch of random rows, other ones each time, of both kinds of feed."""
    kept, unkept = trial.feed, _unkept(trial)
    assert kept is not None
    batches, count = 100, trial.config.batch_size
    picks_nb = torch.randint(
        len(kept), (batches, count), generator=torch.Generator().manual_seed(0)
    )
    turn = itertools.cycle(picks_nb)
    return lambda: kept.fetch(next(turn)), lambda: unkept.fetch(next(turn))


def _unkept(trial: Trial) -> ImageFeed:
    """Return the trial's images left in the store."""
    assert trial.feed is not None  # complete mode has images
    return replace(trial.feed, images_nss3=None, masks_nss=None)


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
