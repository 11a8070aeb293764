"""Says how far a fetch of data from elsewhere is, where it takes long."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from posetune.storage.node import bytes_below

__all__ = ["saying_how_far"]

EVERY_S = 10.0
"""Seconds between two lines; what takes less is fetched without a word."""


@contextmanager
def saying_how_far(folder: Path, address: str, size: int) -> Iterator[None]:
    """Say on stderr now and then during a block how much of the data lies in a folder by now.

    Args:
        folder: the folder that the block fills.
        address: where the data comes from.
        size: bytes of all of the data.
    """
    ended = threading.Event()

    def say() -> None:
        while not ended.wait(EVERY_S):
            here = bytes_below(folder)
            sys.stderr.write(
                f"{address}: {here / 1e9:.2f} of {size / 1e9:.2f} GB are fetched to this node "
                f"({100 * here // max(size, 1)} %)\n"
            )
            sys.stderr.flush()

    teller = threading.Thread(target=say, name="fetch progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
