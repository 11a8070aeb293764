"""A process is put back to what it was before a trial, or it is said what could not be."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posetune.storage.node import fetch_once
from posetune.trial.worker.process_state import ProcessState, seed_process


@pytest.fixture
def before() -> Iterator[ProcessState]:
    state = ProcessState()
    yield state
    state.restore()


def umask() -> int:
    found = os.umask(0o022)
    os.umask(found)
    return found


def flushes() -> bool:
    return bool((torch.tensor([1e-40], dtype=torch.float32) * 1)[0] == 0)


def double() -> None:
    torch.set_default_dtype(torch.float64)


def forget_home() -> None:
    os.environ.pop("HOME", None)


Act = Callable[[], Any]


LEAKS: list[tuple[Act, Act]] = [
    (double, torch.get_default_dtype),
    (lambda: torch.set_num_threads(torch.get_num_threads() + 1), torch.get_num_threads),
    (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    (
        lambda: torch.use_deterministic_algorithms(True),
        torch.are_deterministic_algorithms_enabled,
    ),
    (lambda: torch.set_flush_denormal(True), flushes),
    (lambda: torch.set_default_device("meta"), torch.get_default_device),
    (
        lambda: torch.set_float32_matmul_precision("medium"),
        torch.get_float32_matmul_precision,
    ),
    (
        lambda: setattr(torch.backends.cudnn, "benchmark", True),
        lambda: torch.backends.cudnn.benchmark,
    ),
    (lambda: np.seterr(all="raise"), np.geterr),
    (lambda: os.environ.update(LEAKED="x"), lambda: os.environ.get("LEAKED")),
    (forget_home, lambda: os.environ.get("HOME")),
    (lambda: os.chdir("/"), Path.cwd),
    (lambda: os.umask(0o007), umask),
    (lambda: sys.path.insert(0, "/leak"), lambda: list(sys.path)),
]
"""What a trial may do to its process, and what shows it."""


@pytest.mark.slow
def test_what_a_trial_changed_is_put_back(
    before: ProcessState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", os.environ.get("HOME", "/"))
    state = ProcessState()
    found = [look() for _, look in LEAKS]
    for (leak, look), was in zip(LEAKS, found, strict=True):
        leak()
        assert look() != was

    assert state.restore() == []
    assert [look() for _, look in LEAKS] == found


@pytest.mark.slow
def test_a_thread_that_is_left_is_named(before: ProcessState) -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait, name="prefetcher", daemon=True)
    thread.start()
    assert before.restore() == ["a thread prefetcher still runs"]
    ended.set()
    thread.join()
    assert before.restore() == []


def test_a_file_of_a_library_that_stays_open_is_not_a_trials(before: ProcessState) -> None:
    with Path(np.__file__).resolve().open():  # packages may be links into another folder
        assert before.restore() == []


def test_a_copy_of_data_that_stays_in_use_is_not_a_trials(
    before: ProcessState, tmp_path: Path
) -> None:
    fetch_once(tmp_path / "store", lambda partial: None)
    assert before.restore() == []


@pytest.mark.slow
def test_a_file_that_is_left_open_is_named(before: ProcessState, tmp_path: Path) -> None:
    (tmp_path / "log.txt").touch()
    with (tmp_path / "log.txt").open():
        assert before.restore() == [f"a file is still open: {tmp_path / 'log.txt'}"]
    assert before.restore() == []


def test_a_file_that_only_a_cycle_holds_is_closed(before: ProcessState, tmp_path: Path) -> None:
    (tmp_path / "log.txt").touch()
    cycle: list[Any] = [os.fdopen(os.open(tmp_path / "log.txt", os.O_RDONLY))]
    cycle.append(cycle)
    del cycle
    with pytest.warns(ResourceWarning):
        assert before.restore() == []


def test_a_process_that_is_left_is_named(before: ProcessState) -> None:
    context = multiprocessing.get_context("fork")
    ended = context.Event()
    process = context.Process(target=ended.wait, name="loader", daemon=True)
    process.start()
    assert "a process loader still runs" in before.restore()
    ended.set()
    process.join()


def test_all_shared_generators_are_seeded() -> None:
    def draws() -> list[float]:
        seed_process(2**40 + 5)
        return [random.random(), float(np.random.rand()), float(torch.rand(1)[0])]  # noqa: NPY002

    assert draws() == draws()


_LATE = """
import sys
from posetune.storage.node import fetch_once
from posetune.trial.worker.process_state import ProcessState, seed_process
state = ProcessState()
seed_process(1)
seed_process(3)
assert "torch" not in sys.modules
import torch
print(torch.initial_seed())
torch.set_default_dtype(torch.float64)
state.restore()
print(torch.get_default_dtype())
"""


@pytest.mark.slow
def test_a_torch_that_is_imported_late_is_seeded_and_put_back() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _LATE], capture_output=True, text=True, check=False
    )
    assert (ended.stdout.split(), ended.stderr) == (["3", "torch.float32"], "")
