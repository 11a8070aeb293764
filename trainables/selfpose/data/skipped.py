"""The account of what an import left out: a table in the store, and a refusal if it is strict."""

from __future__ import annotations

import collections
import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

from posetune.api import BadInputError
from selfpose.data.sources import Skip
from selfpose.data.store import SKIPPED_FILE, write_whole

__all__ = ["check_strict", "write_account"]


def write_account(folder: Path, skipped: Sequence[Skip]) -> tuple[dict[str, int], str]:
    """Write every left-out item into a table in `folder`; return counts by reason and a SHA-256."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(Skip._fields)
    table.writerows(skipped)
    write_whole(folder / SKIPPED_FILE, text.getvalue())
    counts = collections.Counter(skip.reason for skip in skipped)
    return dict(sorted(counts.items())), hashlib.sha256(text.getvalue().encode()).hexdigest()


def check_strict(skipped: Sequence[Skip]) -> None:
    """Refuse an import that leaves anything out."""
    if skipped:
        first = skipped[0]
        raise BadInputError(
            f"{first.item}: {first.reason}; mend it, or leave out --strict to skip what is bad"
        )
