"""Writes down what an import left out, and refuses to leave anything out if it is strict."""

from __future__ import annotations

import collections
import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

from posetune.api import BadInputError
from selfpose.data.metadata import SKIPPED_FILE
from selfpose.data.sources import Skip
from selfpose.whole_files import write_whole

__all__ = ["check_strict", "write_account"]


def write_account(folder: Path, skipped: Sequence[Skip]) -> tuple[dict[str, int], str]:
    """Write a table of all items that were left out.

    Args:
        folder: the store's folder.
        skipped: the items.

    Returns:
        The number of items by reason, and the SHA-256 of the table.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(Skip._fields)
    table.writerows(skipped)
    write_whole(folder / SKIPPED_FILE, text.getvalue())
    counts = collections.Counter(skip.reason for skip in skipped)
    return dict(sorted(counts.items())), hashlib.sha256(text.getvalue().encode()).hexdigest()


def check_strict(skipped: Sequence[Skip]) -> None:
    """Refuse an import that leaves anything out.

    Raises:
        BadInputError: an item was left out; the message names the first.
    """
    if skipped:
        first = skipped[0]
        raise BadInputError(
            f"{first.item}: {first.reason}; mend it, or leave out --strict to skip what is bad"
        )
