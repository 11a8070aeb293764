"""Keeps a log to its beginning and its end while processes append to it.

A trial that prints in its innermost loop writes gigabytes. What tells why it failed stands where it
began and where it ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from dataclasses import replace
from pathlib import Path

from posetune.storage.base import Log

__all__ = ["HEAD_BYTES", "LOG_BYTES", "TAIL_BYTES", "cut_log", "limited"]

HEAD_BYTES = 1_000_000
"""How much of a log's beginning is kept."""

TAIL_BYTES = 4_000_000
"""How much of its end is kept when it is cut."""

LOG_BYTES = 10_000_000
"""Size at which a log is cut."""

LOOK_S = 1.0
"""Seconds between two looks at a log's size."""

_GAP = re.compile(rb"\n\[posetune: (\d+) bytes left out here; [^\]\n]*\]\n")


def limited(log: Log) -> Log:
    """Return the same log, which a thread cuts whenever it has become too large, until it ends."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_S):
            with contextlib.suppress(OSError):
                cut_log(log.file)

    def keep() -> None:
        with contextlib.suppress(OSError):
            cut_log(log.file)
        log.keep()

    def close() -> None:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            cut_log(log.file)
        log.close()

    thread = threading.Thread(target=watch, name="log-limit", daemon=True)
    thread.start()
    return replace(log, keep=keep, close=close)


def cut_log(file: Path) -> None:
    """Cut the middle out of a log that is larger than `LOG_BYTES`, and say so in its place.

    The file stays the same one, since processes have it open to append to. Whoever is killed
    in the middle of this leaves some lines twice and loses none; what others append meanwhile may
    be lost.
    """
    if file.stat().st_size <= LOG_BYTES:
        return
    with file.open("r+b") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(HEAD_BYTES)
        before = _GAP.match(log.read(200))
        # Of the tail from a whole line on.
        log.seek(size - TAIL_BYTES)
        tail = log.read()
        tail = tail[tail.find(b"\n") + 1 :]
        gap = len(before[0]) - int(before[1]) if before else 0
        left_out = size - HEAD_BYTES - len(tail) - gap
        said = (
            f"\n[posetune: {left_out} bytes left out here; of a trial's log the first "
            f"{HEAD_BYTES / 1e6:g} MB are kept, and the last of what follows]\n"
        )
        log.seek(HEAD_BYTES)
        log.write(said.encode() + tail)
        log.truncate()
