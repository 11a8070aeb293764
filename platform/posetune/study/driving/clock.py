"""Tells the time within the life of one driver.

The machine's clock may be set while a driver is at work, by a person or a time server. Hours that
are counted by it would jump with it: a budget of hours would end at once, or never.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["life_clock"]


def life_clock() -> Callable[[], float]:
    """Return a clock that begins at the machine's time and then only runs forwards.

    Returns:
        A function that returns seconds since the epoch, as they were at the start and have passed
        since.
    """
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()
