"""What a worker process loads before its first epoch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_worker_imports_no_database_search_tracking_or_network() -> None:
    script = (
        "import sys, posetune.execution.actor\n"
        "print({'sqlalchemy', 'optuna', 'mlflow', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "set()"), done.stderr
