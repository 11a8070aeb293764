"""Collects what a reader needs to trust a result: code, versions, hardware, threads.

The code is a commit and, where tracked files differ from it, the difference. Of the environment's
variables only the numbers of threads are kept, because addresses in it hold passwords.
"""

from __future__ import annotations

import getpass
import hashlib
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

__all__ = [
    "CODE_FILE",
    "COMMIT_VARIABLE",
    "DEPENDENCIES",
    "DIFF_BYTES",
    "PERSON_VARIABLE",
    "code_of",
    "collect",
    "describe_machine",
    "this_person",
    "user_name",
    "versions",
]

DIFF_BYTES = 200_000
"""Largest difference to the commit that is kept, in bytes; of a larger one only the digest is."""

CODE_FILE = "POSETUNE_CODE"
"""Environment variable that names a JSON file with the result of `code_of` on the machine that
submitted a job. The job needs it because packages travel without their repository."""

COMMIT_VARIABLE = "POSETUNE_COMMIT"
"""Environment variable with the commit that an image was built from, followed by `-dirty` where
files differed from it. An image has no repository."""

PERSON_VARIABLE = "POSETUNE_PERSON"
"""Environment variable that says who gave a command, as person@host. A job has it from the machine
that sent the job, because on the cluster everybody has the same account."""

_GIT_S = 10.0
DEPENDENCIES = (
    "torch",
    "ray",
    "optuna",
    "mlflow",
    "psutil",
    "nvidia-ml-py",
    "prometheus-client",
    "numpy",
    "pyarrow",
    "h5py",
    "pydantic",
    "PyYAML",
    "requests",
    "typer",
    "rich",
    "SQLAlchemy",
    "psycopg",
    "safetensors",
    "matplotlib",
    "pillow",
    "Jinja2",
    "plotly",
    "scipy",
    "opencv-python-headless",
)
"""Our direct dependencies, as in pyproject.toml. The list stands here too because code that was
sent to a cluster as plain source has no package metadata to read it from."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def collect(source: Path = Path(__file__)) -> dict[str, Any]:
    """Return code, versions of what runs, host, processor, GPUs and threads.

    It takes about a second.

    Args:
        source: a file of the code whose commit is wanted.

    Returns:
        JSON values by name. `versions` has our direct dependencies, `packages` everything that is
        installed.
    """
    return {
        **_shipped_code(source),
        "versions": versions(),
        "python": sys.version.split()[0],
        **describe_machine(),
        "gpus": _gpus(),
        "host": socket.gethostname(),
        "packages": _packages(),
    }


def this_person() -> str:
    """Return who gave this command and on which machine, as person@host."""
    return os.environ.get(PERSON_VARIABLE) or f"{user_name()}@{socket.gethostname()}"


def user_name() -> str:
    """Return the name of this process's user, or its number where the machine knows no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # as in many containers
        return str(os.getuid())


def describe_machine() -> dict[str, Any]:
    """Return what the speed of a computation on the processor hangs on, as JSON values by name."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": _usable_cores(),
        "threads": {name: os.environ[name] for name in _THREADS if name in os.environ},
    }


def _shipped_code(source: Path) -> dict[str, Any]:
    """Return the record of the code that came with a job, or else that of this machine."""
    shipped = os.environ.get(CODE_FILE)
    if not shipped:
        return code_of(source)
    try:
        return dict(json.loads(Path(shipped).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {"commit": "unknown", "dirty": None}


def code_of(source: Path = Path(__file__)) -> dict[str, Any]:
    """Return the commit that a file belongs to, and how the repository differs from it.

    Returns:
        JSON values: `commit` (or "unknown"), `dirty`, the number of `untracked_files` and, where
        files differ from the commit, `diff`.
    """
    folder = source.parent
    # A repository that merely surrounds an installation does not hold our code.
    if not _git(folder, "ls-files", "--", source.name):
        built_from = os.environ.get(COMMIT_VARIABLE) or "unknown"
        is_dirty = None if built_from == "unknown" else built_from.endswith("-dirty")
        return {"commit": built_from.removesuffix("-dirty"), "dirty": is_dirty}
    status = _git(folder, "status", "--porcelain").splitlines()
    code: dict[str, Any] = {
        "commit": _git(folder, "rev-parse", "HEAD") or "unknown",
        "dirty": bool(status),
        "untracked_files": sum(line.startswith("??") for line in status),
    }
    if code["dirty"]:
        code["diff"] = _diff(folder)
    return code


def _diff(folder: Path) -> dict[str, Any]:
    """Return the difference of tracked files to the commit, as `git apply` takes it.

    Options that the user may have set for `git diff` are all turned off: they would change the
    text, and with it the digest.
    """
    with tempfile.TemporaryFile() as file:
        plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-relative", "--binary")
        if not _run_git(
            folder, "diff", "HEAD", *plain, "--src-prefix=a/", "--dst-prefix=b/", out=file
        ):
            return {"note": "git could not tell the difference"}
        file.seek(0)
        diff = {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": file.tell()}
        file.seek(0)
        content = file.read(DIFF_BYTES + 1)
    if len(content) > DIFF_BYTES:
        return {**diff, "note": f"not kept: larger than {DIFF_BYTES} bytes"}
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return {**diff, "note": "not kept: not UTF-8"}
    return {**diff, "text": text}


def _git(folder: Path, *arguments: str) -> str:
    with tempfile.TemporaryFile() as file:
        if not _run_git(folder, *arguments, out=file):
            return ""
        file.seek(0)
        return file.read().decode(errors="replace").rstrip()


def _run_git(folder: Path, *arguments: str, out: IO[bytes]) -> bool:
    """Run git and write its output to a file; return whether it succeeded."""
    # GIT_DIR and similar variables, as a git hook sets them, would lead to another repository.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    # `git status` would otherwise refresh the index and take its lock from the user's own git.
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        ended = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            stdout=out,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env=environment,
            timeout=_GIT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0


def versions() -> dict[str, str]:
    """Return the versions of posetune and its direct dependencies."""
    # Code that was sent to a cluster runs instead of any posetune that is installed there.
    names = DEPENDENCIES if os.environ.get(CODE_FILE) else ("posetune", *DEPENDENCIES)
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _packages() -> list[str]:
    """Return `name==version` of every installed package, as pip reads it."""
    found = {(d.name, d.version) for d in importlib.metadata.distributions() if d.name}
    return sorted(f"{name}=={version}" for name, version in found)


def _usable_cores() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no such limit
        return os.cpu_count()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _gpus() -> list[str]:
    """Return name, memory and driver of each GPU of this host.

    It asks nvidia-smi, because importing torch for this would take seconds.
    """
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        ended = subprocess.run(query, capture_output=True, text=True, timeout=_GIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return ended.stdout.strip().splitlines() if ended.returncode == 0 else []
