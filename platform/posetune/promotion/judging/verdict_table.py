"""Shows the numbers of the gate's verdict as a table on a terminal."""

from __future__ import annotations

from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from posetune.promotion.judging.gate import Verdict

__all__ = ["verdict_table"]


def verdict_table(verdict: Verdict) -> Table:
    """Return a table with one row for each comparison of a verdict, for a terminal."""
    title = f"gain on the test split, {verdict.unit}, with n motions"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("over", "n", "error", "against", "its", "gain", "95 %", ""):
        side: Literal["left", "right"] = "left" if column in ("over", "against", "") else "right"
        table.add_column(column, justify=side, no_wrap=True)
    for c in verdict.comparisons:
        judged = "better" if c.better else "worse" if c.worse else "open"
        table.add_row(
            c.over,
            str(c.motions),
            f"{c.candidate:.4g}",
            c.other,
            f"{c.other_error:.4g}",
            f"{c.gain:+.3g}",
            f"{c.low:+.3g} to {c.high:+.3g}",
            judged,
        )
    return table
