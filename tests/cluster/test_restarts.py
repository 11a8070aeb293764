"""Sweeps that are taken up again by what `cluster/` starts.

What Slurm's script decides when something ends is asked here of programs that only end, and with a
real Slurm in `test_slurm.py`. In KubeRay's place a test starts the same command again, on real Ray.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from support.sweeps import Script, until, view

TRIALS, EPOCHS = 3, 4
MARK = "POSETUNE_TEST_RESTARTS"

STAND_INS = {
    # Runs the command here; every "node" is this machine.
    "srun": """#!/usr/bin/env bash
echo "srun $*" >> "$CALLS"
while [[ "$1" == --* ]]; do
  case $1 in --output=*) output=${1#--output=}; exec >> "${output//%N/127.0.0.1}" 2>&1 ;; esac
  shift
done
exec "$@"
""",
    "scontrol": """#!/usr/bin/env bash
echo "scontrol $*" >> "$CALLS"
if [ "$1" = show ]; then echo 127.0.0.1; fi
""",
}
SBATCH = Path("cluster", "slurm", "sweep.sbatch")

# For the script's own decisions: a Ray and a driver that only end, as they are told.
ENDING = {
    "ray": """#!/usr/bin/env bash
if [ "$1" = start ]; then
  echo $$ > "$CALLS.head"
  echo "Ray runtime started."
  while [ ! -e "$CALLS.head-goes" ]; do sleep 0.1; done
  exit 1
fi
""",
    "posetune": """#!/usr/bin/env bash
trap 'exit 130' TERM
echo "driver at work" >> "$CALLS"
while [ "$CODE" = signal ]; do sleep 0.1; done
if [ -n "$HEAD_GOES" ]; then touch "$CALLS.head-goes"; fi
while [ "$HEAD_GOES" = first ]; do sleep 0.1; done
exit "$CODE"
""",
}


def with_ray(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that runs sweeps on Ray again and again."""
    return pytest.mark.ray(pytest.mark.slow(pytest.mark.long(test)))


class Place:
    """Where a sweep runs, is disturbed, and is looked at."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder, uuid.uuid4().hex
        self.environment = {
            **os.environ,
            MARK: self.mark,
            "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "POSETUNE_HOME": str(folder / "home"),
            "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
            "COLUMNS": "160",
        }

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait_until(self, reached: Callable[[], object], process: subprocess.Popen[str]) -> None:
        """Wait for what can only come while a process lives."""
        try:
            until(reached, lives=lambda: process.poll() is None)
        except AssertionError:
            self.kill()
            print(process.communicate()[0])
            raise

    def kill(self, name: str = "") -> None:
        """Kill our processes whose command line has this name."""
        sign = f"{MARK}={self.mark}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if sign in (folder / "environ").read_bytes() and name.encode() in command:
                    os.kill(int(folder.name), signal.SIGKILL)

    def check(self) -> None:
        """All trials are there once, whole."""
        found = view(self.folder / "home", "full")
        assert found is not None
        assert found.state == "COMPLETE"
        assert [(t.number, t.state, t.epochs) for t in found.trials] == [
            (number, "COMPLETE", EPOCHS) for number in range(TRIALS)
        ]
        assert len(found.reports) == TRIALS * EPOCHS


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Each of two disturbances comes in the middle of an epoch."""
    return Script(tmp_path / "script", "go", "wait", "go", "go", "wait")


@pytest.fixture
def file(toy_sweep: Callable[..., Path], script: Script) -> Path:
    path = toy_sweep(trials=TRIALS, max_epochs=EPOCHS, cpu=2, script=str(script.file))
    path.write_text(path.read_text().replace("name: asha", "name: none"))
    return path


def write_programs(folder: Path, programs: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def stand_in_for_slurm(place: Place) -> Path:
    """Put the stand-ins where they are found; return the file of their calls."""
    write_programs(place.folder, STAND_INS)
    calls = place.folder / "calls"
    place.environment |= {
        "CALLS": str(calls),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "here",
        "SLURMD_NODENAME": "127.0.0.1",
        "SLURM_SUBMIT_DIR": str(place.folder),
        "SLURM_CPUS_PER_TASK": "2",
        "VENV": str(Path(sys.executable).parents[1]),
    }
    return calls


def requeued(calls: Path) -> int:
    """How often the script has asked Slurm to queue the job again."""
    return len(re.findall(r"^scontrol requeue", calls.read_text(), re.M))


@pytest.mark.parametrize(
    ("code", "head_goes", "restarts", "queued"),
    [
        ("0", "", "0", 0),
        ("130", "", "0", 0),  # `posetune stop`, Ctrl-C
        ("143", "", "0", 0),
        ("137", "", "0", 1),
        ("137", "", "20", 0),
        ("1", "", "0", 0),
        ("1", "after", "0", 1),
        ("130", "first", "0", 1),  # the driver waits for it until it is asked to end
    ],
)
def test_slurm_queues_a_job_again_only_where_it_did_not_end_by_itself(
    repository: Path, place: Place, code: str, head_goes: str, restarts: str, queued: int
) -> None:
    calls = stand_in_for_slurm(place)
    write_programs(place.folder / "venv" / "bin", ENDING)
    ended = {"CODE": code, "HEAD_GOES": head_goes, "SLURM_RESTART_COUNT": restarts}
    job = place.start(
        *("bash", str(repository / SBATCH), "file", "name", "store"),
        VENV=str(place.folder / "venv"),
        **ended,
    )
    output, _ = job.communicate(timeout=120)
    assert job.returncode == int(code), output
    assert requeued(calls) == queued


@pytest.mark.parametrize(("number", "queued"), [(signal.SIGUSR1, 1), (signal.SIGTERM, 0)])
def test_slurm_queues_a_job_again_at_its_time_limit_but_not_when_it_is_cancelled(
    repository: Path, place: Place, number: signal.Signals, queued: int
) -> None:
    calls = stand_in_for_slurm(place)
    write_programs(place.folder / "venv" / "bin", ENDING)
    job = place.start(
        *("bash", str(repository / SBATCH), "file", "name", "store"),
        VENV=str(place.folder / "venv"),
        CODE="signal",
    )
    until(lambda: calls.exists() and "driver at work" in calls.read_text())
    job.send_signal(number)
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 130, output
    assert requeued(calls) == queued


@pytest.mark.parametrize(("restarts", "asked"), [("19", "scontrol requeue 7"), ("20", "scancel 7")])
def test_the_other_nodes_have_a_job_queued_again_that_has_lost_its_first_20_times_at_most(
    repository: Path, tmp_path: Path, restarts: str, asked: str
) -> None:
    """What the script has each node run, with the second node as the only one that is left."""
    on_node = re.search(r"^on_node='\n(.*?)'$", (repository / SBATCH).read_text(), re.M | re.S)
    assert on_node
    record = '#!/usr/bin/env bash\necho "${0##*/} $*" >> "$CALLS"\n'
    write_programs(tmp_path, {name: f"{record}echo second\n" for name in ("scontrol", "squeue")})
    write_programs(tmp_path, {"scancel": record})
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "SWEEP_FOLDER": str(tmp_path / "ray"),
        "SWEEP_HEAD": "first",
        "SLURMD_NODENAME": "second",
        "SLURM_JOB_ID": "7",
        "SLURM_RESTART_COUNT": restarts,
    }
    ray = ["bash", "-c", "exit 3"]
    ended = subprocess.run(["bash", "-c", on_node[1], "ray", *ray], env=environment, timeout=60)
    assert ended.returncode == 3
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [
        "squeue --noheader --jobs=7 --format=%N",
        "scontrol show hostnames second",
        asked,
    ]


@with_ray
def test_the_rayjobs_command_in_the_next_cluster_continues_the_sweep_of_one_that_died(
    repository: Path,
    place: Place,
    file: Path,
    toy_store: Path,
    script: Script,
    free_port: Callable[[], int],
) -> None:
    base = repository / "cluster" / "kuberay" / "base"
    manifest = yaml.safe_load((base / "sweep.yaml").read_text())
    assert manifest["spec"]["backoffLimit"] > 0  # the operator starts another cluster so often
    command = manifest["spec"]["entrypoint"]
    assert "/sweep/sweep.yaml" in command
    assert "--name SWEEP-NAME" in command
    command = command.replace("SWEEP-NAME", "full")  # as render.sh does
    command = command.replace("/sweep/sweep.yaml", shlex.quote(str(file)))
    command += f" --store {shlex.quote(str(toy_store))}"  # as the overlays give it

    place.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

    def start_cluster() -> subprocess.Popen[str]:
        ip, port = f"127.{secrets.randbelow(50) + 70}.{secrets.randbelow(256)}.1", free_port()
        head = ["ray", "start", "--head", f"--port={port}", f"--node-ip-address={ip}"]
        head += ["--num-cpus=2", "--object-store-memory=80000000", "--disable-usage-stats"]
        started = place.start(*head, "--include-dashboard=false")
        output, _ = started.communicate(timeout=120)
        assert started.returncode == 0, output
        # As a job's agent tells it the cluster.
        return place.start("bash", "-c", command, RAY_ADDRESS=f"{ip}:{port}")

    first = start_cluster()
    place.wait_until(lambda: len(script.lines) < 4, first)
    place.kill()
    first.wait()
    script.let_go()
    second = start_cluster()
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output
    place.check()
