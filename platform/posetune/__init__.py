"""posetune: sweeps of complete pose-network trainings, none of them lost.

`cli` reads a sweep file, `execution` runs its trials on Ray, `study` remembers everything,
`tracking` shows it in MLflow, and a trainable knows none of them (it sees `posetune.api` only).
From Python, `posetune.open("NAME").trials()` is a sweep's table.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posetune.report.handle import Sweep

__all__ = ["open"]


def open(name: str, home: str | os.PathLike[str] | None = None) -> Sweep:  # noqa: A001
    """Open a sweep to look at.

    Args:
        name: the sweep.
        home: the home folder (default: POSETUNE_HOME, or `runs`).

    Raises:
        BadInputError: there is no such sweep.
    """
    from posetune.report.handle import open_sweep

    return open_sweep(name, home)
