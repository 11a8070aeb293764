"""Finds ports of loopback where nobody listens."""

from __future__ import annotations

import socket

__all__ = ["find_free_port"]


def find_free_port() -> int:
    """Return a port of loopback where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
