"""What a step on CUDA spends its time in besides matrices, as Triton kernels.

Each module has one operation with its gradient; its plain form stays beside it in torch and is what
the kernels are tested against. Triton comes with torch's CUDA build and needs a C compiler; where
either is missing the plain forms run.
"""

from __future__ import annotations

import functools
import shutil

import torch

__all__ = ["run_on"]


def run_on(device: torch.device) -> bool:
    """Return whether the kernels can run on a device."""
    return device.type == "cuda" and _finds_triton()


@functools.cache
def _finds_triton() -> bool:
    from torch.utils._triton import has_triton

    return bool(has_triton()) and any(map(shutil.which, ("cc", "gcc", "clang")))
