"""The commands, thin: read the arguments, call the package that does it, print the outcome.

`main` is the entry point; `app` lists the commands. Nothing heavy is imported before a command
needs it.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run a command; bad input becomes one clear line and exit code 2."""
    from posetune.api import BadInputError
    from posetune.cli.app import app
    from posetune.storage import StorageError

    try:
        app()
    except BadInputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except StorageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
