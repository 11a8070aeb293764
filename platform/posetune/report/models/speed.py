"""Measures how fast a model predicts on this machine, by the number of images in a call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from posetune.api import BadInputError, Predictor, Progress, silent

__all__ = ["BatchSpeed", "measure_speed", "speed_table"]

FEWEST_CALLS = 5
"""Number of calls of each batch that are timed at least; one more goes before them untimed."""


@dataclass(frozen=True)
class BatchSpeed:
    """Holds how fast a model predicts batches of one size."""

    batch: int
    """Number of images in a call."""
    calls: int
    """Number of calls that were timed."""
    images_per_s: float
    """Number of images per second, over all calls."""
    median_ms: float
    """Median time of a call, in milliseconds."""
    p95_ms: float
    """Time within which 95 % of the calls ended, in milliseconds."""


def measure_speed(
    predictor: Predictor,
    batches: Sequence[int],
    *,
    seconds: float,
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
) -> list[BatchSpeed]:
    """Time a model on random images.

    Args:
        predictor: the model.
        batches: numbers of images in a call, each at least 1.
        seconds: time for which each batch is measured, at least.
        progress: hears how many batches are finished.
        clock: gives the time in seconds.

    Raises:
        BadInputError: a batch or the time is too small.
    """
    if not batches or min(batches) < 1:
        raise BadInputError(f"each batch must have 1 image or more, got {list(batches)}")
    if not seconds > 0:
        raise BadInputError(f"seconds must be above 0, got {seconds:g}")
    generator, side = np.random.default_rng(0), predictor.image_size
    found = []
    for i, batch in enumerate(batches):
        progress(i, len(batches), f"{batch} images a call")
        images = generator.integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
        predictor(images)  # memory and kernels of this size are made in the first call
        calls_s: list[float] = []
        while len(calls_s) < FEWEST_CALLS or sum(calls_s) < seconds:
            began = clock()
            predictor(images)
            calls_s.append(clock() - began)
        median_s, p95_s = np.quantile(calls_s, (0.5, 0.95))
        found.append(
            BatchSpeed(
                batch=batch,
                calls=len(calls_s),
                images_per_s=batch * len(calls_s) / sum(calls_s),
                median_ms=1e3 * float(median_s),
                p95_ms=1e3 * float(p95_s),
            )
        )
    progress(len(batches), len(batches))
    return found


def speed_table(found: Sequence[BatchSpeed]) -> Table:
    """Return the speeds as a table for a terminal."""
    table = Table(box=SIMPLE)
    for title in ("images a call", "images/s", "ms a call (median)", "ms (95 %)", "calls"):
        table.add_column(title, justify="right")
    for speed in found:
        table.add_row(
            str(speed.batch),
            f"{speed.images_per_s:,.1f}",
            f"{speed.median_ms:,.1f}",
            f"{speed.p95_ms:,.1f}",
            str(speed.calls),
        )
    return table
