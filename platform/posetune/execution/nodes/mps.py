"""Lets the trials that share a node's GPUs work on them at the same time, by NVIDIA's MPS.

Without MPS a GPU turns from one process to the next; with it, kernels of several processes run
beside each other. But an error that breaks one trial's use of the GPU breaks that of the others
too, so `resources.mps` asks for it. It has not been run on a GPU yet.

A node has one MPS for each user, which the first worker that wants it starts. Each such worker
holds a lock until it ends, however that happens. A guard waits for that lock, and then ends MPS.
Where another MPS runs, it is left alone: programs use it without being told.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["join_mps", "look_at_mps"]

CONTROL = "nvidia-cuda-mps-control"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
WAIT_S = 20.0
"""Seconds that the control program has to answer."""

_GUARD = """
import fcntl, os, subprocess, sys
users = os.open(sys.argv[1], os.O_RDWR)
if os.fork():
    os._exit(0)  # Ray kills the children of a worker that ends, and this one is to outlive it
os.setsid()
fcntl.flock(users, fcntl.LOCK_EX)
subprocess.run([sys.argv[2]], input=b"quit\\n", stdout=subprocess.DEVNULL, timeout=60)
"""
"""Waits until no worker of the node uses MPS, and ends it; new workers wait meanwhile."""

_users: list[int] = []
"""The open file by which this process says that it uses MPS, until it ends."""


def look_at_mps() -> str:
    """Return whether MPS will be used on this node, and why not; nothing is started."""
    if refusal := _refusal():
        return f"MPS will not be used: {refusal}"
    if _answers():
        return "MPS of an earlier sweep runs and will be used"
    if running := _other():
        return f"MPS will be left as it is: {running}"
    return "MPS will be started with the first trial"


@functools.cache  # once CUDA was used, a process that went on without cannot join any more
def join_mps() -> str:
    """Let this process use its GPU by MPS until it ends, and start MPS if none runs.

    To be called before CUDA is first used. Where MPS cannot be had, the process goes on without. A
    later call changes nothing, and returns what the first one did.

    Returns:
        What came of it, as a line for the trial's log.
    """
    if refusal := _refusal():
        return f"MPS is not used: {refusal}"
    try:
        return _join()
    except (OSError, subprocess.SubprocessError) as error:
        _leave()
        return f"MPS is not used: it does not start ({error}); see {_folder() / 'log'}"


def _join() -> str:
    folder = _folder()
    for name in ("", "pipe", "log"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    with _alone(folder / "starting"):
        _users.append(_lock(folder / "users", fcntl.LOCK_SH))  # waits for a guard at its end
        if not _answers():
            if running := _other():
                _leave()
                return f"MPS is left as it is: {running}"
            _start(folder)
    os.environ.update(_variables(folder))
    return f"MPS is used ({folder})"


def _start(folder: Path) -> None:
    """Start MPS for all GPUs of the node, after the guard that ends it.

    The guard waits for the lock that this process holds already. If MPS does not start, the guard
    finds none to end.

    Raises:
        OSError: one of them does not start.
    """
    _start_guard(folder)
    log = folder / "log" / "start"
    with log.open("w", encoding="utf-8") as out:  # a pipe would stay open as long as it runs
        ended = subprocess.run(
            [CONTROL, "-d"],
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            timeout=WAIT_S,
            start_new_session=True,
        )
    if ended.returncode:
        said = " ".join(log.read_text(encoding="utf-8", errors="replace").split())[:200]
        raise OSError(f"`{CONTROL} -d` ends with {ended.returncode}: {said or 'no message'}")


def _start_guard(folder: Path) -> None:
    """Start the process that ends MPS when no worker uses it any more.

    Raises:
        OSError: it does not start.
    """
    ended = subprocess.run(
        [sys.executable, "-I", "-c", _GUARD, str(folder / "users"), CONTROL],
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=WAIT_S,
    )
    if ended.returncode:
        raise OSError(f"the process that would end it ends with {ended.returncode}")


def _refusal() -> str:
    """Return why MPS cannot be used on this node, and what to do; empty where it can."""
    if shutil.which(CONTROL) is None:
        return f"{CONTROL} is not on the PATH of this node; install NVIDIA's driver tools there"
    try:
        return next(filter(None, _faults_of_gpus()), "")
    except Exception as error:  # noqa: BLE001 - NVML raises one class for each of its errors
        return f"NVIDIA's driver does not answer ({error})"


def _faults_of_gpus() -> Iterator[str]:
    """Yield for each GPU of the node why MPS cannot use it; empty where it can."""
    import pynvml

    pynvml.nvmlInit()
    try:
        for i in range(pynvml.nvmlDeviceGetCount()):
            gpu = pynvml.nvmlDeviceGetHandleByIndex(i)
            if pynvml.nvmlDeviceGetComputeMode(gpu) == pynvml.NVML_COMPUTEMODE_PROHIBITED:
                yield f"GPU {i} is in compute mode PROHIBITED; an administrator can change it"
            with contextlib.suppress(pynvml.NVMLError_NotSupported):
                if pynvml.nvmlDeviceGetMigMode(gpu)[0] == pynvml.NVML_DEVICE_MIG_ENABLE:
                    yield f"GPU {i} is cut into parts (MIG), which trials can have for themselves"
    finally:
        pynvml.nvmlShutdown()


def _answers() -> bool:
    """Return whether our own MPS runs."""
    folder = _folder()
    if not (folder / "pipe" / "control").exists():
        return False  # asked without one, the control program would complain
    try:
        asked = subprocess.run(
            [CONTROL],
            env=_environment(folder),
            input=b"get_server_list\n",
            capture_output=True,
            timeout=WAIT_S,
        )
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


def _other() -> str:
    """Return which other MPS is in use on this node; empty where there is none."""
    named = os.environ.get(PIPES)
    if named and named != _variables(_folder())[PIPES]:
        return f"{PIPES} is set to {named}"
    for name in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # has ended meanwhile
            if name.read_text().startswith(CONTROL[:15]):  # Linux keeps so many characters
                return f"one runs already (process {name.parent.name})"
    return ""


def _folder() -> Path:
    """Return the folder of this user's MPS; its path is short, as those of sockets must be."""
    return Path(tempfile.gettempdir()) / f"posetune-mps-{os.getuid()}"


def _variables(folder: Path) -> dict[str, str]:
    return {PIPES: str(folder / "pipe"), LOGS: str(folder / "log")}


def _environment(folder: Path) -> Mapping[str, str]:
    """Return the environment of MPS: it serves all GPUs, of which a worker sees only its own."""
    kept = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    return {**kept, **_variables(folder)}


def _lock(file: Path, kind: int) -> int:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold a lock during a block; one process of the node at a time."""
    descriptor = _lock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def _leave() -> None:
    """Say that this process does not use MPS after all."""
    while _users:
        os.close(_users.pop())
