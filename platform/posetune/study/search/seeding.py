"""Derives seeds from the sweep, the trial and the purpose, so that a resume repeats them."""

from __future__ import annotations

import hashlib

__all__ = ["seed_for"]


def seed_for(sweep_seed: int, number: int, purpose: str) -> int:
    """Return a 31-bit seed that depends on all three and on nothing else."""
    text = f"{sweep_seed}/{number}/{purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
