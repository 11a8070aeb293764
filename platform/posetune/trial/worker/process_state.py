"""Makes a worker as new before every trial: puts back what the trial before it has changed.

What belongs to the process is put back: seeds, torch's settings, NumPy's error handling, the
environment, the working directory, the umask and `sys.path`. What cannot be put back is named:
threads, processes, open files and memory of the GPU that the trial left. Class variables and the
state of modules cannot be known in general, so only trainables that declare `reusable` share a
process at all; `posetune.testing.conformance` compares them with a new one, bit for bit.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import random
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np

from posetune.storage.node import held_descriptors
from posetune.trial.worker.imports import after_import
from posetune.trial.worker.torch_state import TorchState, device_bytes

__all__ = ["ProcessState", "seed_process"]

_DEVICE_BYTES = 64 * 1024**2
"""Bytes of the GPU that may stay allocated after a trial: what libraries keep for themselves."""
_NOT_A_TRIALS = (
    *("/proc/", "/sys/", "/usr/", "/dev/shm", "/dev/nvidia", "/dev/dri", "/dev/urandom"),
    *(
        f"{place}/"
        for place in (Path(sys.prefix).resolve(), Path(np.__file__).resolve().parents[1])
    ),
)
"""How the paths of open files begin that belong to libraries and drivers, not to a trial:
Matplotlib, for one, keeps its fonts open."""
_RAYS = "/session_"
"""What the paths of Ray's own files hold, which it opens and closes at any time."""
_OWN_MODULES = ("ray", "posetune")
"""Packages whose threads and processes live as long as the worker or end by themselves."""


def seed_process(seed: int) -> None:
    """Seed the generators that a whole process shares: Python's, NumPy's and torch's."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the trainable may use the shared generator

    def seed_torch() -> None:
        import torch

        torch.manual_seed(seed)  # of all devices

    after_import("torch", "seed", seed_torch)


class ProcessState:
    """What a process was like before its first trial."""

    def __init__(self) -> None:
        """Take note of the present state; the trainable's module is imported by now."""
        self._environment = dict(os.environ)
        self._folder = Path.cwd()
        self._umask = _read_umask()
        self._path = list(sys.path)
        self._numpy_errors, self._numpy_call = np.geterr(), np.geterrcall()
        self._threads = set(threading.enumerate())
        self._files = _open_files()
        self._torch: TorchState | None = None
        after_import("torch", "state", self._read_torch)

    def _read_torch(self) -> None:
        self._torch = TorchState.read()

    def restore(self) -> list[str]:
        """Put the process back, after a trial has been closed.

        Returns:
            What could not be put back, in words; if there is anything, the process is not as new.
        """
        left = []
        self._restore_environment()
        try:
            os.chdir(self._folder)
        except OSError as error:
            left.append(f"its working directory {self._folder} is gone ({error.strerror})")
        os.umask(self._umask)
        sys.path[:] = self._path
        np.seterr(**self._numpy_errors)
        np.seterrcall(self._numpy_call)
        if self._torch is not None:
            self._torch.put_back()
        gc.collect()  # closes the files and frees the tensors that only cycles hold
        return [*left, *self._left_behind()]

    def _restore_environment(self) -> None:
        """Put back what differs, and nothing else: other threads may be reading the rest."""
        for name in [*os.environ]:
            if name not in self._environment:
                del os.environ[name]
        for name, value in self._environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value

    def _left_behind(self) -> list[str]:
        """Return what the trial left and nobody can take away, in words."""
        threads = [t.name for t in threading.enumerate() if t not in self._threads and _is_alien(t)]
        left = [f"a thread {name} still runs" for name in threads]
        left += [f"a process {p.name} still runs" for p in multiprocessing.active_children()]
        opened = _open_files() - self._files
        left += [f"a file is still open: {path}" for path in sorted(opened)]
        held = device_bytes()
        if held > _DEVICE_BYTES:
            left.append(f"{held / 1e6:.0f} MB of the GPU are still allocated")
        return left


def _is_alien(thread: threading.Thread) -> bool:
    """Whether a thread is neither the platform's nor Ray's."""
    if isinstance(thread, threading._DummyThread):  # one of a C++ library, e.g. of Ray's
        return False
    target = getattr(thread, "_target", None) or type(thread).run
    module: str = getattr(target, "__module__", "") or ""
    return module.partition(".")[0] not in _OWN_MODULES and not thread.name.startswith("ray")


def _read_umask() -> int:
    umask = os.umask(0o077)  # it cannot be read without being set
    os.umask(umask)
    return umask


def _open_files() -> Counter[str]:
    """Return the paths of the files that this process has open, each as often as it is open.

    Sockets, pipes and what has no path are left out: Ray opens and closes them at any time. So is
    what says which copies of data this process uses, as it does until its end.
    """
    found: Counter[str] = Counter()
    ours = {0, 1, 2, *held_descriptors()}
    with contextlib.suppress(OSError):  # there is no such folder but on Linux
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile, as the folder's own is
                path = str(entry.readlink())
                is_file = path.startswith("/") and not path.endswith(" (deleted)")
                is_known = path.startswith(_NOT_A_TRIALS) or _RAYS in path
                if int(entry.name) not in ours and is_file and not is_known:
                    found[path] += 1
    return found
