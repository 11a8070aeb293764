"""The programs compile for the GPUs that are in use, without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
@pytest.mark.parametrize("capability", ["80", "90"])  # A100, H100 and H200
def test_every_program_compiles(capability: str, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="no Triton here")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    script = Path(__file__).with_name("compile_programs.py")
    result = subprocess.run(
        [sys.executable, str(script), capability],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(f"programs for {capability}\n")
