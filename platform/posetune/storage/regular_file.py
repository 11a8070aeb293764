"""Refuses what is no file where a file is read: a pipe without a writer is waited for for ever.

Whoever reads a file by a name that is not ours asks here first.
"""

from __future__ import annotations

from pathlib import Path

from posetune.api import BadInputError

__all__ = ["refuse_pipe"]


def refuse_pipe(path: Path) -> None:
    """Refuse a pipe, a device or a socket; a path where nothing is passes.

    Raises:
        BadInputError: names the path and says what to do.
    """
    try:
        is_there, is_plain = path.exists(), path.is_file() or path.is_dir()
    except (OSError, ValueError):  # opening it says why it cannot be read
        return
    if is_there and not is_plain:
        raise BadInputError(f"{path}: is a pipe or a device, not a file; write it into a file")
