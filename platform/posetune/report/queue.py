"""Shows who holds what of a cluster, and who waits for what."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from posetune.study.sharing.queue import QueueEntry

__all__ = ["queue_table"]


def queue_table(entries: Sequence[QueueEntry]) -> Table:
    """Return the sweeps that a driver is at work on as a table."""
    columns = ("sweep", "owner", "priority", "share", "holds", "may have", "wants", "still open")
    table = Table(*columns, "waits for", box=SIMPLE)
    for entry in entries:
        numbers = (entry.entitled, entry.wants, entry.open)
        table.add_row(
            Text(entry.sweep),
            Text(entry.owner),
            _shown(entry.priority),
            _shown(entry.share),
            f"{entry.holds} x {_slot(entry)}",
            *map(_shown, numbers),
            Text(entry.waits_for),
        )
    return table


def _slot(entry: QueueEntry) -> str:
    """Return what one trial takes, as text."""
    gpu = f", {entry.gpu:g} GPU" if entry.gpu else ""
    return f"({entry.cpu:g} CPU{gpu})"


def _shown(number: float | None) -> str:
    return "-" if number is None else f"{number:g}"
