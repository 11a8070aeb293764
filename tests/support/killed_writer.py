"""A process that is killed while it writes a file, with a helper that is to write it whole.

Run as a program with the helper's module and the file: it writes half of the new content, says so,
and waits to be killed.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

__all__ = ["NEW", "kill_within_a_write"]

NEW = "the new content" * 1000


def kill_within_a_write(module: str, file: Path) -> None:
    """Kill a process that has written half of the new content, and not moved it into place."""
    command = [sys.executable, __file__, module, str(file)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "half\n"
        writer.kill()


def main() -> None:
    """Write half of the new content, and wait."""
    helper = importlib.import_module(sys.argv[1])
    with helper.writing_whole(Path(sys.argv[2])) as partial:
        partial.write_text(NEW[: len(NEW) // 2], encoding="utf-8")
        print("half", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
