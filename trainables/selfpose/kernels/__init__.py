"""What a step on CUDA spends its time in besides matrices, as Triton kernels.

Each module has one operation with its gradient, `programs` what runs on the GPU itself. torch's own
operations stay the form for all else, and what the kernels are tested against. Triton comes with
torch's CUDA build and needs a C compiler and Python's headers; without, torch's operations run.
"""

from __future__ import annotations

import functools
import os
import shutil
import sysconfig
from pathlib import Path

import torch

__all__ = ["run_on"]


def run_on(device: torch.device) -> bool:
    """Return whether the kernels can run on a device: on GPUs with bf16, from Ampere on."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    return _finds_triton()


@functools.cache
def _finds_triton() -> bool:
    from torch.utils._triton import has_triton

    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return bool(has_triton() and compiler and header.exists())
