"""Runs posetune's commands in this process, as `main` does in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

__all__ = ["Posetune", "command_environment", "forget_token", "run_here"]

Posetune = Callable[..., subprocess.CompletedProcess[str]]
"""Runs a command with these arguments and returns how it ended and what it printed."""

REDIRECTING = {"POSETUNE_DATABASE", "POSETUNE_STORAGE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"}


def command_environment(folder: Path) -> dict[str, str]:
    """The environment of a command: its home below `folder`, nothing that redirects it."""
    kept = {k: v for k, v in os.environ.items() if k not in REDIRECTING}
    return {**kept, "POSETUNE_HOME": str(folder / "home"), "COLUMNS": "160"}


def run_here(
    *arguments: object, folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in this process.

    Args:
        arguments: the words behind `posetune`.
        folder: the working directory; the home is `home` below it.
        environment: more variables for it.

    Returns:
        What `subprocess.run` gives for a command in a process of its own.
    """
    from posetune.cli import run

    words = [str(argument) for argument in arguments]
    out, err = io.StringIO(), io.StringIO()
    with (
        _restored(),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        changed = {**command_environment(folder), **(environment or {})}
        os.environ.clear()
        os.environ.update(changed)
        sys.argv = ["posetune", *words]
        # Else the command would be named after pytest: `python -m pytest.posetune`.
        sys.modules["__main__"].__package__ = None
        code = run()
    said = err.getvalue() + (f"{code}\n" if isinstance(code, str) else "")
    number = 1 if isinstance(code, str) else code or 0
    return subprocess.CompletedProcess(words, number, out.getvalue(), said)


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    environment, argv = dict(os.environ), sys.argv
    package = sys.modules["__main__"].__package__
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = argv
        sys.modules["__main__"].__package__ = package
        forget_token()


def forget_token() -> None:
    """Let Ray ask for tokens as the environment says: it keeps what a Ray of its own needed."""
    if "ray" in sys.modules:
        from ray._private.authentication_test_utils import reset_auth_token_state

        reset_auth_token_state()
