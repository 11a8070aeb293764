"""Checks that only the owner can read the files that hold a token or a password."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from posetune.api import BadInputError
from posetune.storage.regular_file import refuse_pipe

__all__ = ["check_aws", "check_mlflow", "check_ray", "read_secret_file"]


def check_ray() -> None:
    """Refuse a file with Ray's token that others can read.

    Ray writes `~/.ray/auth_token` itself and lets others read it, so that file is made private
    instead of being refused.

    Raises:
        BadInputError: others can read the file that the message names.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not given:
        with contextlib.suppress(OSError):  # the file is not there, or belongs to another user
            Path("~/.ray/auth_token").expanduser().chmod(0o600)
    _check_private(given or "~/.ray/auth_token")


def check_mlflow() -> None:
    """Refuse a file with MLflow's password that others can read.

    Raises:
        BadInputError: others can read the file that the message names.
    """
    _check_private("~/.mlflow/credentials")


def check_aws() -> None:
    """Refuse a file with AWS's keys that others can read.

    Raises:
        BadInputError: others can read the file that the message names.
    """
    _check_private(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials")


def read_secret_file(file: Path) -> str:
    """Return the secret in the first line of a file that nobody else can read.

    Raises:
        BadInputError: the file cannot be read, is empty, or others can read it.
    """
    file = file.expanduser()
    _check_private(str(file))
    refuse_pipe(file)
    try:
        lines = file.read_text(encoding="utf-8").split("\n", 1)
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "no text"
        raise BadInputError(f"{file}: the secret in it cannot be read ({cause})") from error
    if not lines[0].strip():
        raise BadInputError(f"{file}: has no secret in its first line; write it there")
    return lines[0].strip()


def _check_private(name: str) -> None:
    file = Path(name).expanduser()
    try:
        mode = file.stat().st_mode
    except OSError:
        return  # the code that needs the file says that it is missing
    if mode & 0o077:
        raise BadInputError(
            f"{file}: holds a secret that others can read (mode {mode & 0o777:o}); chmod 600 {file}"
        )
