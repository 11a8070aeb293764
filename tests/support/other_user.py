"""Runs posetune's commands as another user of this machine, with a home of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["become_possible", "run_as"]

RUN = """
import json, sys
from pathlib import Path
from support.commands import run_here
folder, environment, commands = json.loads(sys.argv[1])
done = [run_here(*words, folder=Path(folder), environment=environment) for words in commands]
print(json.dumps([[one.args, one.returncode, one.stdout, one.stderr] for one in done]))
"""
REACHED = """
held=$1 closed=$2 prefix=$3; shift 3
mount --bind "$prefix" "$held"
mount -t tmpfs -o mode=755 tmpfs "$closed"
mkdir -p "$prefix"
mount --bind "$held" "$prefix"
exec "$@"
"""
"""Runs a command where the folders above a prefix are open to everybody, in mounts of its own."""


def become_possible() -> str:
    """Return why no command can run as another user here; empty where one can."""
    if os.geteuid() != 0:
        return "needs root, to run commands as another user"
    if shutil.which("setpriv") is None:
        return "needs setpriv (Debian: util-linux)"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        return "needs mounts of its own, to let another user reach this Python"
    return ""


def run_as(
    uid: int,
    commands: Sequence[Sequence[object]],
    *,
    folder: Path,
    environment: Mapping[str, str],
) -> list[subprocess.CompletedProcess[str]]:
    """Run commands one after another in one process of another user.

    Args:
        uid: the user's number; there may be no name for it.
        commands: the words of each, behind `posetune`.
        folder: a folder of the user's; the working directory, with the home below it.
        environment: all variables that the user has, besides those that a command needs.
    """
    os.chown(folder, uid, uid)
    words = [[str(word) for word in command] for command in commands]
    given = json.dumps([str(folder), dict(environment), words])
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    python = [sys.executable, "-c", RUN, given]
    done = subprocess.run(
        [*_reaching(folder), *user, *python],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [subprocess.CompletedProcess(*one) for one in json.loads(done.stdout.splitlines()[-1])]


def _reaching(folder: Path) -> list[str]:
    """Return the words before a command in which everybody reaches this Python."""
    prefix = Path(sys.base_prefix).resolve()
    closed = [parent for parent in prefix.parents if not parent.stat().st_mode & 0o001]
    if not closed:
        return []
    held = folder / "python"
    held.mkdir(exist_ok=True)
    mounts = ["unshare", "--mount", "sh", "-ec", REACHED, "sh"]
    return [*mounts, str(held), str(closed[-1]), str(prefix)]
