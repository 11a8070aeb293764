"""Renews a page while its sweep runs."""

from __future__ import annotations

from collections.abc import Callable

from posetune.study.states import SweepStatus
from posetune.study.view import SweepView

__all__ = ["watch_sweep"]


def watch_sweep(
    read: Callable[[], SweepView], write: Callable[[SweepView], None], wait: Callable[[], None]
) -> SweepView:
    """Write a running sweep's page whenever something has happened in it.

    Args:
        read: returns the sweep as it is now.
        write: writes its page.
        wait: returns when it is time for another look.

    Returns:
        The sweep once no driver is at it any more, of which no page is written here.
    """
    shown = None
    while True:
        view = read()
        if view.state != SweepStatus.RUNNING:
            return view
        stands = len(view.reports), len(view.trials), len(view.ended), view.waits_for
        if stands != shown:
            write(view)
        shown = stands
        wait()
