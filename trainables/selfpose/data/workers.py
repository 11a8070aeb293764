"""Runs jobs in worker processes and returns their results in order.

A worker ends when this process ends, for whatever reason, so an interrupted import leaves no
worker behind.
"""

from __future__ import annotations

import collections
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

from posetune.api import BadInputError

__all__ = ["run_jobs"]

AHEAD = 4
"""Number of jobs under way per worker, enough that no worker waits while a shard is written."""

T = TypeVar("T")


def run_jobs(jobs: Iterable[Callable[[], T]], *, workers: int) -> Generator[T]:
    """Run jobs in this process or in workers, and yield their results in order.

    Args:
        jobs: functions to call; they are pickled if there are several workers.
        workers: number of processes; 1 runs the jobs in this process.

    Raises:
        BadInputError: a worker was killed, most often because memory ran out.
    """
    if workers <= 1:
        for job in jobs:
            yield job()
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    under_way: collections.deque[Future[T]] = collections.deque()
    try:
        for job in jobs:
            under_way.append(pool.submit(job))
            if len(under_way) >= AHEAD * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    except BrokenProcessPool:
        raise BadInputError(
            f"one of {workers} worker processes was killed, most often for lack of memory; "
            "give the same command again with fewer --workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the importing process handles Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
