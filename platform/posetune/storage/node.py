"""Keeps this node's copies of data that lies elsewhere, one for all processes of the node."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

__all__ = ["cache_folder", "fetch_once"]


def cache_folder() -> Path:
    """Return the node's own folder for copies: POSETUNE_CACHE, or `~/.cache/posetune`."""
    named = os.environ.get("POSETUNE_CACHE")
    return Path(named or "~/.cache/posetune").expanduser().absolute()


def fetch_once(target: Path, fetch: Callable[[Path], object]) -> None:
    """Make a folder unless it is there; one process of the node does so while the others wait.

    Args:
        target: the folder; its name says what is in it, so a folder that is there is the right one.
        fetch: function that fills the folder that it is given, which is then moved into place.
    """
    if target.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system frees it when its holder dies
        if target.is_dir():
            return
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            fetch(partial)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
