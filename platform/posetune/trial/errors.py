"""Tells the errors of a trial apart: of the trainable's code, of the system, of a full GPU.

An error of the code comes again with every try, so the trial is not tried again. The system, the
GPU's driver and the network between processes fail for a while: the trial is tried again in a new
process. A GPU whose memory is full is an outcome of its own.

Types of torch are recognised by their names: a worker of a trainable without torch must not import
it to look at an error.
"""

from __future__ import annotations

import dataclasses
import re
import site
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from posetune.api import BadInputError, TrialFailedError
from posetune.spec.loading import configure
from posetune.spec.registration import load_trainable
from posetune.study.faults import Fault, FaultKind
from posetune.trial.run import Assignment

__all__ = ["read_error", "say_memory"]

TRACE_CHARACTERS = 6000
"""Length of a traceback that is kept; the middle of a longer one is left out."""

LINE_CHARACTERS = 500
"""Length of an error's words that is kept."""

_FULL_GPU = re.compile(
    r"(CUDA|HIP|XPU|MPS|CUBLAS|CUDNN)\w*.{0,40}(out of memory|ALLOC_FAILED)", re.I
)
_OF_THE_SYSTEM = re.compile(
    r"CUDA error|CUDA driver|CUDNN|CUBLAS|CUFFT|CUSOLVER|NCCL|\bgloo\b"
    r"|connection closed by peer|DataLoader worker",
    re.I,
)
"""What torch writes into a RuntimeError where GPU, network or a process of its own failed."""

_TORCH_CRASHES = {"AcceleratorError", "_DistError", "DistError"}
"""Classes of torch whose errors, and those of their subclasses, are no errors of the code."""


def read_error(error: BaseException) -> Fault:
    """Return what an error of a trial means."""
    kind = FaultKind.CODE
    for cause in _causes(error):
        kind = _kind(cause)
        if kind != FaultKind.CODE:
            break
    words = " ".join(str(error).split())[:LINE_CHARACTERS]
    name = type(error).__name__
    line = words if kind == FaultKind.TOLD else f"{name}: {words}" if words else name
    return Fault(kind, name, _place(error), line, _trace(error))


def say_memory(fault: Fault, assignment: Assignment) -> Fault:
    """Return a fault of a full GPU in words that name the size of the trial's batches."""
    config = load_trainable(assignment.spec.trainable).config_model
    fields = configure(config, assignment.spec.fixed, assignment.params).model_dump()
    size = fields.get("batch_size", fields.get("batch"))
    at = f" at batch {size}" if size is not None else ""
    return dataclasses.replace(fault, line=f"out of memory{at} ({fault.line})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from by name, the outermost first."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def _kind(error: BaseException) -> FaultKind:
    if isinstance(error, TrialFailedError | BadInputError):
        return FaultKind.TOLD
    of_torch = {
        cls.__name__ for cls in type(error).__mro__ if cls.__module__.partition(".")[0] == "torch"
    }
    is_runtime = isinstance(error, RuntimeError)
    if "OutOfMemoryError" in of_torch or (is_runtime and _FULL_GPU.search(str(error))):
        return FaultKind.MEMORY
    if isinstance(error, OSError | MemoryError) or of_torch & _TORCH_CRASHES:
        return FaultKind.CRASH
    if is_runtime and _OF_THE_SYSTEM.search(str(error)):
        return FaultKind.CRASH
    return FaultKind.CODE


def _place(error: BaseException) -> str:
    """Return the innermost line that is neither Python's own nor an installed package's."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    own = [frame for frame in frames if not _is_installed(frame.filename)]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"


def _is_installed(file: str) -> bool:
    paths = sysconfig.get_paths()
    libraries = [paths["stdlib"], paths["platstdlib"], *site.getsitepackages()]
    return file.startswith("<") or any(file.startswith(folder) for folder in libraries)


def _trace(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error)).strip()
    if len(text) <= TRACE_CHARACTERS:
        return text
    half = TRACE_CHARACTERS // 2
    return f"{text[:half]}\n  [...]\n{text[-half:]}"
