"""Takes the signals that ask a process to end, so that it can end cleanly."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["take_signals"]


@contextmanager
def take_signals(
    take: Callable[[signal.Signals], bool],
    numbers: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM),
) -> Iterator[None]:
    """Call a function on each signal that comes during a block.

    Once it has taken one, Ctrl-C interrupts at once: who presses it again wants no clean end.
    Python lets only the main thread take signals; in any other the block runs as if without.

    Args:
        take: is told which signal came, and returns whether that is all. Where it is not, the
            signal does what it did before the block.
        numbers: the signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}
    has_taken = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal has_taken
        if number == signal.SIGINT and has_taken:
            raise KeyboardInterrupt
        if take(signal.Signals(number)):
            has_taken = True
        else:
            _act_as_before(before[number], number, frame)

    for number in numbers:
        before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])


def _act_as_before(handler: Any, number: int, frame: FrameType | None) -> None:
    if callable(handler):
        handler(number, frame)
    elif handler == signal.SIG_DFL:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
