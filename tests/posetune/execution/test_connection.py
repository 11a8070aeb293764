"""Ray that does not start, or does not answer: one line says what and what to do."""

from __future__ import annotations

import errno
import gc
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support.commands import Posetune, forget_token
from support.sweeps import view

from posetune.api import BadInputError
from posetune.execution.connection import (
    RayNotStartedError,
    _explain,
    _nothing_freed_elsewhere,
    _reach,
    connected,
)

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def environment_of_before() -> Iterator[None]:
    """Ray sets RAY_AUTH_MODE where it starts, and keeps it: it would refuse other tests' heads."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    forget_token()


@pytest.mark.parametrize(
    ("folder", "why"),
    [("long" * 25, "AF_UNIX path length cannot exceed 107 bytes"), ("file/below", "directory")],
)
def test_a_folder_that_ray_cannot_use_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, why: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / folder))
    with pytest.raises(RayNotStartedError) as refused, connected(None):
        pass
    (line,) = str(refused.value).splitlines()
    assert line.startswith("Ray does not start on this machine (")
    assert why in line
    assert line.endswith(
        f"its files are below {tmp_path / folder}: name a folder that can be written to, with a "
        "short path, in RAY_TMPDIR"
    )


@pytest.mark.parametrize(
    ("error", "of_the_folder"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (TimeoutError("timed out"), False),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), False),
        (OSError(errno.EMFILE, "Too many open files"), False),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), False),
    ],
)
def test_only_what_is_wrong_with_the_folder_names_the_folder(
    error: OSError, of_the_folder: bool
) -> None:
    said = _explain(error, str(error))
    assert str(error) in said
    assert ("RAY_TMPDIR" in said) == of_the_folder
    assert ("its logs are in" in said) == (not of_the_folder)


def test_an_address_of_ipv6_in_brackets_is_reached() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("needs IPv6")
    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"needs IPv6 on loopback: {error}")
    with listening:
        _reach(f"[::1]:{listening.getsockname()[1]}")


def test_an_address_where_nobody_listens_is_refused_at_once(free_port: Callable[[], int]) -> None:
    address = f"127.0.0.1:{free_port()}"
    with (
        pytest.raises(BadInputError, match=f"--address {address}: no Ray cluster answers"),
        connected(address),
    ):
        pass


@pytest.mark.slow
def test_a_sweep_whose_ray_does_not_start_says_so_and_loses_nothing(
    posetune: Posetune,
    toy_sweep: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 25)))
    ended = posetune("sweep", toy_sweep(trials=1), "--name", "s", "--no-tracking")
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    said = " ".join(ended.stderr.split())
    assert "Ray does not start on this machine (validate_socket_filename failed: " in said
    assert "nothing is lost, the same command again continues the sweep" in said
    found = view(tmp_path / "home")
    assert found is not None
    assert (found.state, found.trials) == ("INTERRUPTED", ())


def test_no_thread_collects_garbage_while_ray_shuts_down() -> None:
    assert gc.isenabled()
    with _nothing_freed_elsewhere():
        assert not gc.isenabled()
    assert gc.isenabled()


GARBAGE = """
import gc, threading, ray
from posetune.execution.connection import connected


class Loop:
    pass


with connected(None, include_dashboard=False, num_cpus=1):
    gc.disable()  # or the garbage would be gone by then
    for _ in range(5000):
        loop = Loop()
        loop.itself, loop.held = loop, ray.put(1)
    threading.Timer(0.1, gc.collect).start()
print("still here")
"""


@pytest.mark.long
@pytest.mark.slow
def test_garbage_that_another_thread_collects_at_the_end_does_not_end_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", GARBAGE], capture_output=True, text=True)
    assert done.stdout == "still here\n", done.stderr
    assert done.returncode == 0


UV_CHILD = """
from ray._private.worker import _maybe_modify_runtime_env
from posetune.execution.connection import _kept_to_this_machine

with _kept_to_this_machine():
    ours = _maybe_modify_runtime_env({}, False)
print(ours, "uv" in str(_maybe_modify_runtime_env({}, False)))
"""


@pytest.mark.slow
def test_uv_makes_no_environment_for_the_workers_of_a_ray_of_our_own(tmp_path: Path) -> None:
    """Ray looks for `uv run` among its parents; this one is Python under that name."""
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'p'\nversion = '1'\n")
    (tmp_path / "child.py").write_text(UV_CHILD)
    (tmp_path / "run").write_text(
        f"import subprocess; subprocess.run([{sys.executable!r}, 'child.py'], check=True)"
    )
    named = ["bash", "-c", f"exec -a uv {sys.executable} run child.py"]
    done = subprocess.run(named, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "{} True"  # and Ray itself would have taken it


@pytest.mark.slow
@pytest.mark.long
def test_a_ray_of_our_own_listens_on_loopback_only(tmp_path: Path) -> None:
    def ask() -> int:
        return os.getpid()

    with connected(None, include_dashboard=False, num_cpus=1):
        import ray

        ray.get(ray.remote(ask).remote())  # a worker listens, too
        ours = psutil.Process()
        open_to = {
            connection.laddr.ip.removeprefix("::ffff:")
            for process in [ours, *ours.children(recursive=True)]
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        }
    assert open_to == {"127.0.0.1"}
