"""Makes random generators that depend on what is drawn, never on the order of the work."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["generator"]


def generator(*key: str | int) -> np.random.Generator:
    """Return the random generator of one thing to draw.

    Equal keys give equal generators in any process, so a frame looks the same however many
    workers there are and after any interruption.

    Args:
        key: a seed and the name of the thing, in any number of parts.
    """
    digest = hashlib.sha256("\0".join(str(part) for part in key).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
