"""Without a GPU, Triton's interpreter runs the kernels: the same programs, one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is first imported, so not in a fixture


@pytest.fixture
def device() -> Iterator[str]:
    """Where the kernels run here."""
    pytest.importorskip("triton", reason="no Triton here")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield "cuda" if torch.cuda.is_available() else "cpu"
