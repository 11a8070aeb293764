"""Shows who holds what of a cluster, and who waits for what."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from posetune.study.sharing.queue import QueueEntry

__all__ = ["queue_table", "waiting_lines"]


def queue_table(entries: Sequence[QueueEntry]) -> Table:
    """Return the sweeps that a driver is at work on as a table, narrow enough for 80 columns.

    Priority and share are shown where they differ.
    """
    ranks = {(entry.priority, entry.share) for entry in entries}
    ranked = ("priority", "share") if len(ranks) > 1 else ()
    numbers = ("may\nhave", "wants", "still\nopen")
    table = Table("sweep, owner", box=SIMPLE, padding=(0, 1, 0, 0))
    for column in (*ranked, "holds", *numbers):
        table.add_column(column, no_wrap=True)  # a long name gives way
    for entry in entries:
        rank = (entry.priority, entry.share) if ranked else ()
        table.add_row(
            Text(f"{entry.sweep}\n{entry.owner}".strip(), overflow="fold"),
            *map(_shown, rank),
            f"{entry.holds} x\n{_slot(entry)}",
            *map(_shown, (entry.entitled, entry.wants, entry.open)),
        )
    return table


def waiting_lines(entries: Sequence[QueueEntry]) -> list[str]:
    """Return a line for each sweep that waits for something."""
    return [f"{entry.sweep}: {entry.waits_for}" for entry in entries if entry.waits_for]


def _slot(entry: QueueEntry) -> str:
    """Return what one trial takes, as text."""
    gpu = f", {entry.gpu:g} GPU" if entry.gpu else ""
    return f"({entry.cpu:g} CPU{gpu})"


def _shown(number: float | None) -> str:
    return "-" if number is None else f"{number:g}"
