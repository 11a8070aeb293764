"""What does a step on CUDA spend its time in besides matrices? That, as Triton kernels.

Each module has one operation with its gradient, `programs` what runs on the GPU itself. torch's own
operations stay the form for all else, and what the kernels are tested against. Triton comes with
torch's CUDA build and needs a C compiler and Python's headers; without, torch's operations run.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import sysconfig
from pathlib import Path

import torch

from posetune.api import BadInputError

__all__ = ["check_compiler", "run_on"]


def run_on(device: torch.device) -> bool:
    """Return whether the kernels can run on a device: on GPUs with bf16, from Ampere on."""
    return _are_for(device) and _finds_triton()


def check_compiler(device: torch.device) -> None:
    """Refuse a node that cannot build the kernels: it would be slow and round differently.

    Raises:
        BadInputError: the kernels are for this device, and nothing compiles them here.
    """
    if _are_for(device) and not _finds_triton():
        raise BadInputError(
            f"replay: true needs GPU kernels, which cannot be built on {platform.node()}: Triton, "
            "a C compiler or Python.h is missing; install gcc and Python's headers on every node, "
            "or set replay: false, with which steps take some four times as long"
        )


def _are_for(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@functools.cache
def _finds_triton() -> bool:
    from torch.utils._triton import has_triton

    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return bool(has_triton() and compiler and header.exists())
