"""Finds the processes of a driver with a Ray of its own, which all are in its session."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["in_session"]


def in_session(session: int, name: str) -> list[int]:
    """Return the processes of a session by the beginning of their program's or their own name.

    Args:
        session: the id of the driver that was started in a session of its own.
        name: `raylet`, `gcs_server`, or `ray::` for workers.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            pid = int(folder.name)
            first = (folder / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            if os.getsid(pid) == session and Path(first).name.startswith(name):
                found.append(pid)
    return found
