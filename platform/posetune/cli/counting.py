"""Counts things in words."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, as `1 sweep` or `2 sweeps`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
