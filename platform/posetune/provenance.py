"""What a reader needs to trust a result: code, versions, hardware."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["collect"]

PACKAGES = ("posetune", "torch", "ray", "optuna", "mlflow", "numpy", "pyarrow", "h5py")


def collect() -> dict[str, Any]:
    """Return code commit and whether it was changed since, versions, host and processor."""
    source = Path(__file__).parent
    commit = _git(source, "rev-parse", "HEAD")
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "commit": commit or "unknown",
        "dirty": bool(_git(source, "status", "--porcelain")) if commit else None,
        "versions": versions,
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "host": socket.gethostname(),
    }


def _git(folder: Path, *arguments: str) -> str:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
