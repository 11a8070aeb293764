"""Waits for an event, however long this machine takes; the limit ends what is broken."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_until"]

LIMIT_S = 300.0
"""Far more than any event takes on a busy machine."""
EVERY_S = 0.05


def wait_until(happened: Callable[[], object], what: str) -> None:
    """Return when `happened` is true; `what` names the event where it never comes."""
    deadline = time.monotonic() + LIMIT_S
    while not happened():
        assert time.monotonic() < deadline, f"not within {LIMIT_S:.0f} s: {what}"
        time.sleep(EVERY_S)
