"""MPS is started once for a node, left alone where one runs, and ended with its last user.

A program stands in for NVIDIA's: no test here needs a GPU, and none has shown MPS on one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.commands import Posetune
from support.sweeps import until

from posetune.execution.nodes import mps
from posetune.execution.nodes.mps import CONTROL, PIPES, join_mps, look_at_mps
from posetune.spec.sweep import Resources

# As the real one: `-d` leaves a process and the pipe `control`, `quit` on its input ends both.
FAKE = f"""#!/bin/sh
echo "$@" "$CUDA_VISIBLE_DEVICES" >> "$LOG"
[ -n "$BROKEN" ] && {{ echo "no such device"; exit 1; }}
if [ "$1" = -d ]; then
    mkfifo "${PIPES}/control"
    exit 0
fi
read said
echo "$said" >> "$LOG"
[ "$said" = quit ] && rm "${PIPES}/control"
exit 0
"""
USER = """
import sys, time
from posetune.execution.nodes import mps
mps._faults_of_gpus = lambda: iter([])
mps._other = lambda: ""
print(mps.join_mps(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A node of its own with MPS's control program; what that was told."""
    tools, log = tmp_path / "bin", tmp_path / "told"
    tools.mkdir()
    (tools / CONTROL).write_text(FAKE)
    (tools / CONTROL).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    monkeypatch.setenv("LOG", str(log))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # it is read anew
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(mps, "_faults_of_gpus", lambda: iter([]))
    monkeypatch.setattr(mps, "_users", [])
    join_mps.cache_clear()
    monkeypatch.delenv(PIPES, raising=False)
    for name in (PIPES, mps.LOGS):  # put back afterwards
        monkeypatch.setitem(os.environ, name, "")
        del os.environ[name]
    log.touch()
    yield log
    mps._leave()
    join_mps.cache_clear()


@pytest.fixture
def start(log: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start workers that use MPS until their input ends; each has said that it does."""
    workers = []

    def worker() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", USER]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        workers.append(subprocess.Popen(command, text=True, **pipes))
        assert "MPS is used" in workers[-1].stdout.readline()
        return workers[-1]

    yield worker
    for process in workers:
        process.kill()
        process.communicate()
    until(lambda: told(log, "quit") == told(log, "-d"))


def told(log: Path, what: str) -> int:
    return [line.split(" ")[0] for line in log.read_text().splitlines()].count(what)


@pytest.mark.slow
def test_the_first_worker_starts_it_and_the_last_that_ends_or_is_killed_ends_it(
    log: Path, start: Callable[[], subprocess.Popen[str]]
) -> None:
    first, second = start(), start()
    assert "-d \n" in log.read_text(), "it serves all GPUs, not only the first worker's"
    assert told(log, "-d") == 1
    first.send_signal(signal.SIGKILL)
    first.wait()
    third = start()
    assert told(log, "-d") == 1
    for worker in (second, third):
        assert told(log, "quit") == 0
        worker.communicate()
    until(lambda: told(log, "quit"))
    start()

    assert told(log, "-d") == 2, "the next sweep starts it again"


def test_this_process_is_told_where_it_is(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mps, "_other", lambda: "")
    assert look_at_mps() == "MPS will be started with the first trial"
    said = join_mps()
    assert said.startswith("MPS is used")
    assert os.environ[PIPES].startswith(str(tmp_path))
    assert look_at_mps() == "MPS of an earlier sweep runs and will be used"
    assert join_mps() == said
    assert told(log, "-d") == 1
    mps._leave()
    until(lambda: told(log, "quit"))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("tool", f"not used: {CONTROL} is not on the PATH"),
        ("mode", "not used: GPU 1 is in compute mode"),
        ("driver", "not used: NVIDIA's driver does not answer (gone)"),
        ("start", "does not start (`nvidia-cuda-mps-control -d` ends with 1: no such device)"),
        ("guard", "does not start (the process that would end it ends with 3)"),
        ("other", f"left as it is: {PIPES} is set to /elsewhere"),
    ],
)
def test_where_it_cannot_be_had_a_trial_goes_on_without(
    fault: str, said: str, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> Iterator[str]:
        raise RuntimeError("gone")

    match fault:
        case "tool":
            monkeypatch.setenv("PATH", "")
        case "mode":
            faults = ["", "GPU 1 is in compute mode PROHIBITED"]
            monkeypatch.setattr(mps, "_faults_of_gpus", lambda: iter(faults))
        case "driver":
            monkeypatch.setattr(mps, "_faults_of_gpus", gone)
        case "start":
            monkeypatch.setenv("BROKEN", "1")
        case "guard":
            monkeypatch.setattr(mps, "_GUARD", "raise SystemExit(3)")
        case "other":
            monkeypatch.setenv(PIPES, "/elsewhere")
    before = dict(os.environ)

    assert said in join_mps()
    assert dict(os.environ) == before
    assert not mps._users
    if fault != "start":
        assert told(log, "-d") == 0, "nobody would end it"
        assert look_at_mps().startswith("MPS will ")


def test_the_first_answer_holds_for_the_process(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mps, "_other", lambda: "process 7 holds it")
    said = join_mps()
    monkeypatch.setattr(mps, "_other", lambda: "")

    assert "left as it is" in said
    assert join_mps() == said
    assert PIPES not in os.environ, "a trial before has used CUDA without"
    assert told(log, "-d") == 0


def test_it_is_for_trials_that_share_a_gpu() -> None:
    assert Resources.model_validate({"gpu": 1, "share": True, "mps": True}).mps
    assert Resources.model_validate({"gpu": 0.5, "mps": True}).mps
    for gpu in (0, 1, 2):
        with pytest.raises(ValueError, match=r"mps needs trials that share a GPU; set share: true"):
            Resources.model_validate({"gpu": gpu, "mps": True})


def test_check_says_whether_it_will_be_used(
    posetune: Posetune,
    toy_sweep: Callable[..., Path],
    log: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mps, "_other", lambda: "")
    file = toy_sweep()
    file.write_text(file.read_text().replace("{cpu: 1}", "{cpu: 1, gpu: 0.5, mps: true}"))
    result = posetune("check", file)

    assert result.returncode == 0, result.stderr
    assert "MPS will be started with the first trial" in result.stderr
    assert told(log, "-d") == 0
