"""A worker tells the errors of a trial apart by what another try would do."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from posetune.api import BadInputError, TrialFailedError
from posetune.spec.sweep import SweepSpec
from posetune.storage import open_storage
from posetune.storage.store_place import StorePlace
from posetune.study.faults import FaultKind
from posetune.trial.errors import TRACE_CHARACTERS, read_error, say_memory
from posetune.trial.run import Assignment

CODE, CRASH, MEMORY, TOLD = FaultKind.CODE, FaultKind.CRASH, FaultKind.MEMORY, FaultKind.TOLD


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - it is what the test looks at
        return caught


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NameError("name 'x' is not defined"), CODE),
        (KeyError("missing"), CODE),
        (ValueError("shapes differ"), CODE),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), CODE),
        (ModuleNotFoundError("No module named 'x'"), CODE),
        (RecursionError("maximum recursion depth exceeded"), CODE),
        (SystemExit(3), CODE),
        (OSError(5, "Input/output error"), CRASH),
        (FileNotFoundError(2, "No such file"), CRASH),
        (ConnectionResetError(104, "Connection reset by peer"), CRASH),
        (TimeoutError("timed out"), CRASH),
        (MemoryError("Unable to allocate 9 GiB"), CRASH),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), CRASH),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), CRASH),
        (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:1, unhandled system error"), CRASH),
        (torch.AcceleratorError("CUDA error: device-side assert triggered", 710), CRASH),
        (torch.distributed.DistBackendError("NCCL communicator was aborted"), CRASH),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), CRASH),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), MEMORY),
        (RuntimeError("CUDA error: out of memory"), MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `f`"), MEMORY),
        (TrialFailedError("diverged"), TOLD),
        (BadInputError("depth: too large"), TOLD),
    ],
    ids=lambda value: f"{type(value).__name__}" if isinstance(value, BaseException) else str(value),
)
def test_errors_are_told_apart(error: BaseException, kind: FaultKind) -> None:
    assert read_error(raised(error)).kind == kind


def test_the_cause_of_an_error_counts_where_it_is_named() -> None:
    wrapped = ValueError("no batch")
    wrapped.__cause__ = OSError(5, "Input/output error")
    assert read_error(raised(wrapped)).kind == CRASH


def test_type_place_and_words_are_those_of_the_users_own_line() -> None:
    try:
        json.loads("{")  # raised deep within Python's own library
    except ValueError as error:
        fault = read_error(error)
    assert fault.error == "JSONDecodeError"
    assert fault.place.startswith("test_errors.py:")
    assert fault.place.endswith("in test_type_place_and_words_are_those_of_the_users_own_line")
    assert "\n" not in fault.line
    assert fault.trace.startswith("Traceback")
    assert fault.line in fault.trace


def test_a_long_traceback_is_kept_shortened() -> None:
    fault = read_error(raised(ValueError("x" * 10**6)))
    assert len(fault.trace) < TRACE_CHARACTERS + 20
    assert fault.trace.startswith("Traceback")


def test_a_full_gpu_is_said_with_the_size_of_the_batch(tmp_path: Path) -> None:
    spec = SweepSpec.model_validate(
        {
            "trainable": "selfpose.trainable:SelfPose",
            "objective": {"metric": "val/p_mpjpe_mm", "mode": "min"},
            "search": {"batch_size": {"choice": [32, 96]}},
            "pruner": {"max_epochs": 1},
            "budget": {"trials": 1},
        }
    )
    assignment = Assignment(
        sweep="s",
        trial=0,
        attempt=1,
        seed=0,
        params={"batch_size": 96},
        spec=spec,
        store=StorePlace("", ""),
        storage=open_storage(str(tmp_path)),
        checkpoints=(),
    )
    full = read_error(raised(torch.OutOfMemoryError("CUDA out of memory.")))
    assert say_memory(full, assignment).line.startswith("out of memory at batch 96 (")
    toy = spec.model_copy(update={"trainable": "posetune.testing.toy:Toy"})
    without = replace(assignment, spec=toy, params={})
    assert say_memory(full, without).line.startswith("out of memory (")


@pytest.mark.slow
def test_looking_at_an_error_does_not_import_torch() -> None:
    script = (
        "import sys; from posetune.trial.errors import read_error; "
        "read_error(RuntimeError('CUDA error')); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
