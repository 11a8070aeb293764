"""Reads the settings that torch keeps for a whole process, and puts them back.

torch takes seconds to import, and a trainable may import it late or never. So the functions here
are called when somebody else has imported it, see `posetune.trial.worker.imports`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

__all__ = ["TorchState", "device_bytes"]

_CUDNN = ("enabled", "benchmark", "deterministic")
"""Flags of `torch.backends.cudnn`."""


@dataclass(frozen=True)
class TorchState:
    """The settings of torch that one trial may change for the next."""

    dtype: Any
    threads: int
    computes_gradients: bool
    is_deterministic: bool
    only_warns: bool
    """Whether an operation that is not deterministic is only warned of."""
    flushes_denormals: bool
    detects_anomalies: bool
    matmul_precision: str
    cudnn: tuple[bool, ...]

    @classmethod
    def read(cls) -> TorchState:
        """Return the present settings."""
        import torch

        denormal = torch.tensor([1e-40], dtype=torch.float32, device="cpu") * 1
        return cls(
            dtype=torch.get_default_dtype(),
            threads=torch.get_num_threads(),
            computes_gradients=torch.is_grad_enabled(),
            is_deterministic=torch.are_deterministic_algorithms_enabled(),
            only_warns=torch.is_deterministic_algorithms_warn_only_enabled(),
            flushes_denormals=bool(denormal[0] == 0),
            detects_anomalies=torch.is_anomaly_enabled(),
            matmul_precision=torch.get_float32_matmul_precision(),
            cudnn=tuple(bool(getattr(torch.backends.cudnn, flag)) for flag in _CUDNN),
        )

    def put_back(self) -> None:
        """Set torch to these settings again."""
        import torch

        if torch.get_default_device().type != "cpu":
            torch.set_default_device(None)  # a new process has none
        torch.set_default_dtype(self.dtype)
        torch.set_num_threads(self.threads)
        torch.set_grad_enabled(self.computes_gradients)
        torch.use_deterministic_algorithms(self.is_deterministic, warn_only=self.only_warns)
        torch.set_flush_denormal(self.flushes_denormals)
        torch.autograd.set_detect_anomaly(self.detects_anomalies)
        torch.set_float32_matmul_precision(self.matmul_precision)
        for flag, value in zip(_CUDNN, self.cudnn, strict=True):
            setattr(torch.backends.cudnn, flag, value)


def device_bytes() -> int:
    """Return how many bytes of its GPU this process' tensors hold; 0 without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0
    torch._C._cuda_clearCublasWorkspaces()  # the library's own scratch memory counts as a tensor's
    return int(torch.cuda.memory_allocated())
