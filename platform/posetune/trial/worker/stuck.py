"""Kills a worker whose epoch shows no sign of life, after it has written where it hangs.

A sign of life is a report or a call of the trainable's `progress`. What goes on outside of an
epoch, such as building or awaiting a stage, is not watched. The watch is a thread of the worker
itself: the driver cannot look into a process that is in the middle of a call.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["FIRST_S", "LEAST_S", "StuckWatch"]

LEAST_S = 600.0
"""No worker is killed sooner, in seconds, unless the sweep file says so."""

MEDIANS = 20
"""After so many times the median epoch an epoch without a sign of life counts as stuck."""

FIRST_S = 6 * 3600.0
"""The same in seconds, while no epoch of the sweep has ended."""


class StuckWatch:
    """Watches the epochs of one attempt."""

    def __init__(
        self, *, limit_s: float | None, median_s: float, leave_mark: Callable[[], None]
    ) -> None:
        """Begin to watch.

        Args:
            limit_s: seconds without a sign of life, as the sweep file says; None for the default.
            median_s: the median epoch of the sweep so far, in seconds; 0 where none has ended.
            leave_mark: tells the driver why the process ends.
        """
        self._limit_s, self._leave_mark = limit_s, leave_mark
        self._known_s = [median_s] if median_s else []
        self._seen: float | None = None
        """When the epoch under way last showed a sign of life; None between epochs."""
        self._closed = threading.Event()
        threading.Thread(target=self._look, name="stuck-watch", daemon=True).start()

    @property
    def limit_s(self) -> float:
        """For how long an epoch may show no sign of life, in seconds."""
        if self._limit_s is not None:
            return self._limit_s
        if not self._known_s:
            return FIRST_S
        return max(LEAST_S, MEDIANS * statistics.median(self._known_s))

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """Watch an epoch."""
        began = self._seen = time.monotonic()
        try:
            yield
            self._known_s.append(time.monotonic() - began)
        finally:
            self._seen = None

    def beat(self) -> None:
        """Take note of a sign of life."""
        if self._seen is not None:
            self._seen = time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _look(self) -> None:
        while not self._closed.wait(min(1.0, self.limit_s / 4)):
            seen = self._seen
            if seen is not None and time.monotonic() - seen > self.limit_s:
                self._end()

    def _end(self) -> None:
        """Write where every thread stands, and end the process: nothing else can be stopped."""
        print(f"no progress for {self.limit_s:.0f} s: the worker is killed", file=sys.stderr)  # noqa: T201
        faulthandler.dump_traceback(all_threads=True)
        try:
            self._leave_mark()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
