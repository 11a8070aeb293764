"""Says how many messages wait: as a line for people, and as JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posetune.notifications.outbox import WaitingCount

__all__ = ["notification_line", "waiting_json"]


def notification_line(waiting: Mapping[str, WaitingCount]) -> str:
    """Return how many messages wait for whom and why; empty where none waits."""
    parts = [
        f"{one.number} for {destination}" + (f" ({one.error})" if one.error else "")
        for destination, one in waiting.items()
    ]
    return f"messages that wait: {'; '.join(parts)}" if parts else ""


def waiting_json(waiting: Mapping[str, WaitingCount]) -> dict[str, Any]:
    """Return the same as JSON values."""
    return {name: {"count": one.number, "error": one.error} for name, one in waiting.items()}
