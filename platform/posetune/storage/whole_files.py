"""Writes a file whole or not at all: it is made beside its place, and moved there at the end.

Whoever reads the file, and whoever finds it after a process was killed, sees the old content or the
new one, never a part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["write_whole", "writing_whole"]


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a file's new content; text as UTF-8."""
    with writing_whole(file) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def writing_whole(file: Path) -> Iterator[Path]:
    """Give a path to write to for a block; what is there at the end becomes the file.

    Nothing is there at first, not even what a process left that was killed. Where the block raises,
    the file stays as it is. Two processes must not write the same file at a time.

    Args:
        file: the file; its folder must exist.
    """
    partial = file.with_name(f".{file.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
