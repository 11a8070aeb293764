"""Keeps this node's copies of data that lies elsewhere, one for all processes of the node.

Beside each copy lie two empty files: `.lock`, held by the one process that makes or removes the
copy, and `.used`, held by every process that has asked for the copy, until that process ends. The
system frees both when their holder dies. What another user has made is shared, but not removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from posetune.api import BadInputError

__all__ = ["bytes_below", "cache_folder", "fetch_once", "held_descriptors", "make_space"]

LIMIT_GB = 100.0
"""Size of all copies of a node, in GB, where POSETUNE_CACHE_GB does not say another."""

_KINDS = ("stores", "stages")
"""Folders of the cache that hold copies."""
_held: dict[Path, int] = {}
"""The copies that this process uses, and the file descriptors that say so to the others."""


def cache_folder() -> Path:
    """Return the node's own folder for copies: POSETUNE_CACHE, or `~/.cache/posetune`."""
    named = os.environ.get("POSETUNE_CACHE")
    return Path(named or "~/.cache/posetune").expanduser().absolute()


def fetch_once(target: Path, fetch: Callable[[Path], object]) -> None:
    """Make a folder unless it is there; one process of the node does so while the others wait.

    The folder counts as in use until this process ends.

    Args:
        target: the folder; its name says what is in it, so a folder that is there is the right one.
        fetch: function that fills the folder that it is given, which is then moved into place.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _opened(_beside(target, "lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            partial = _beside(target, "partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                fetch(partial)
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        _hold(target)


def make_space(size: int) -> None:
    """Remove the copies that were not asked for longest, until another one is within the limit.

    What a process uses or fetches stays, so the limit may be exceeded.

    Args:
        size: bytes of the new copy.

    Raises:
        BadInputError: POSETUNE_CACHE_GB is no size.
    """
    limit = _limit_bytes()
    sizes = {copy: bytes_below(copy) + bytes_below(_beside(copy, "partial")) for copy in _copies()}
    total = size + sum(sizes.values())
    for copy in sorted(sizes, key=_last_asked):
        if total <= limit:
            return
        if _remove_unless_used(copy):
            total -= sizes[copy]


def held_descriptors() -> set[int]:
    """Return the file descriptors by which this process says which copies it uses."""
    return set(_held.values())


def _hold(copy: Path) -> None:
    """Say that this process uses a copy, until it ends; its `.lock` must be held."""
    used = _open(_beside(copy, "used"))
    fcntl.flock(used, fcntl.LOCK_SH)
    with contextlib.suppress(PermissionError):
        os.utime(used)  # when the copy was last asked for
    if copy in _held:  # of a cache that may have been emptied since
        os.close(_held[copy])
    _held[copy] = used


def _remove_unless_used(copy: Path) -> bool:
    """Remove a copy, and what is left of a fetch that died; return whether it could be."""
    with _held_alone(_beside(copy, "lock")) as is_free:
        if not is_free:
            return False
        with _held_alone(_beside(copy, "used")) as is_free:
            if not is_free:
                return False
            partial = _beside(copy, "partial")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                copy.rename(partial)  # so that nobody takes a part of it for the whole
            except PermissionError:
                return False
            except FileNotFoundError:
                return True
            shutil.rmtree(partial, ignore_errors=True)
            return True


@contextmanager
def _held_alone(file: Path) -> Iterator[bool]:
    """Hold a file's lock for a block, if no other process does."""
    with _opened(file) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def _opened(file: Path) -> Iterator[int]:
    """Open a file for its lock, for a block."""
    descriptor = _open(file)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(file: Path) -> int:
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user's
        return os.open(file, os.O_RDONLY)


def _copies() -> list[Path]:
    """Return all copies of this node, also those of which only a part was fetched."""
    locks = [lock for kind in _KINDS for lock in (cache_folder() / kind).glob("*.lock")]
    return [lock.with_suffix("") for lock in locks]


def _beside(copy: Path, ending: str) -> Path:
    return copy.with_name(f"{copy.name}.{ending}")


def _last_asked(copy: Path) -> float:
    """Return when a copy was last asked for, in seconds since the epoch; 0 if that is not known."""
    with contextlib.suppress(FileNotFoundError):
        return _beside(copy, "used").stat().st_mtime
    return 0.0


def bytes_below(folder: Path) -> int:
    """Return the size of all files below a folder, which may be changing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _limit_bytes() -> float:
    given = os.environ.get("POSETUNE_CACHE_GB")
    try:
        limit_gb = LIMIT_GB if given is None else float(given)
    except ValueError:
        limit_gb = math.nan
    if not limit_gb >= 0:
        raise BadInputError(
            f"POSETUNE_CACHE_GB={given}: must be the size in GB that copies of data may have on "
            f"this node; without it, {LIMIT_GB:g}"
        )
    return limit_gb * 1e9
