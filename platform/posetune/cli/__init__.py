"""What does a person type, and what do they read?

A command reads its arguments, calls the package that does the work, and prints the outcome.

`main` is the entry point; `app` lists the commands. Nothing heavy is imported before a command
needs it.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from typing import Any

__all__ = ["main", "run"]


def main() -> None:
    """Run the command that this process was started with, and end with its exit code."""
    _leave(run())


def run() -> int | str | None:
    """Run the command in `sys.argv`; bad input becomes one clear line.

    Returns:
        The exit code: 0 or None for success, 2 for bad input.
    """
    from typer.exceptions import Abort, TyperException
    from typer.rich_utils import rich_format_error

    from posetune.api import BadInputError
    from posetune.cli.app import app
    from posetune.storage import StorageError
    from posetune.visible import visible

    try:
        code = app(standalone_mode=False)
    except BadInputError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        return 2
    except StorageError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        shown_path = visible(str(error.filename))
        print(f"error: {shown_path:.200}: {error.strerror}; give another path", file=sys.stderr)
        return 2
    except Abort:
        print("aborted", file=sys.stderr)
        return 1
    except TyperException as error:  # a usage error, which repeats what was given
        shown: Any = error
        shown.message = visible(shown.message)
        rich_format_error(shown)
        return int(shown.exit_code)
    except SystemExit as end:
        return end.code
    return code if isinstance(code, int) else 0


def _leave(code: int | str | None) -> None:
    """End this process, though the tracker's thread may still be at work.

    The thread is a daemon. If native code runs in it (a figure is drawn) when the interpreter takes
    itself apart, the process aborts, and a sweep that is complete would look like one that crashed.
    """
    if isinstance(code, int | None) and "tracker" in {t.name for t in threading.enumerate()}:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)
    sys.exit(code)
