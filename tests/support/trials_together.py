"""How many trials an hour a device trains if several share it, each in a process of its own.

    python -m support.trials_together FILE     # a worker of `measure_together`

A worker starts a trial of what the file says and says so; then it trains and validates an epoch for
each line that it is given. So what is timed has neither imports nor the kernels' compilation in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from posetune.api import TrialContext, TrialFailedError, silent
from selfpose.config import SelfPoseConfig

__all__ = ["Together", "measure_together"]

READY = "ready"


@dataclass(frozen=True)
class Together:
    """What so many trials at a time came to."""

    trials: int
    """At a time."""
    seconds: float
    """For the epochs that each of them trained."""
    trials_per_hour: float
    """Whole ones, of the epochs that a trial has; its start is not counted."""


def measure_together(
    config: SelfPoseConfig,
    context: TrialContext,
    *,
    counts: Sequence[int],
    epochs: int,
    rounds: int = 3,
    environment: Mapping[str, str] | None = None,
) -> list[Together]:
    """Train epochs of the same trial in several processes at a time, with other seeds.

    Args:
        config: of the trials.
        context: device, store and stage products.
        counts: how many at a time.
        epochs: of a whole trial.
        rounds: epochs that each trains between two looks at the clock.
        environment: more variables of the processes.
    """
    file = context.work / "together.json"
    told = {
        "config": config.model_dump(mode="json"),
        "store": str(context.store),
        "work": str(context.work),
        "products": {name: str(folder) for name, folder in context.products.items()},
        "device": context.device,
    }
    file.write_text(json.dumps(told))
    found = []
    with _workers(file, max(counts), environment or {}) as workers:
        for count in counts:
            seconds = _time(workers[:count], rounds)
            per_hour = count * rounds / epochs / seconds * 3600
            found.append(Together(count, seconds, per_hour))
    return found


@contextmanager
def _workers(
    file: Path, count: int, environment: Mapping[str, str]
) -> Iterator[list[subprocess.Popen[str]]]:
    path = os.pathsep.join(filter(None, [*sys.path, os.environ.get("PYTHONPATH")]))
    variables = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "support.trials_together", str(file), str(seed)],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(count)
    ]
    try:
        for worker in workers:
            _hear(worker)
        yield workers
    finally:
        for worker in workers:
            with contextlib.suppress(BrokenPipeError):
                worker.communicate()  # ends its input


def _time(workers: Sequence[subprocess.Popen[str]], rounds: int) -> float:
    began = time.perf_counter()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n" * rounds)
        worker.stdin.flush()
    for worker in workers:
        for _ in range(rounds):
            _hear(worker)
    return time.perf_counter() - began


def _hear(worker: subprocess.Popen[str]) -> None:
    assert worker.stdout is not None
    said = worker.stdout.readline().strip()
    if said != READY:
        raise RuntimeError(f"a trial beside others has ended with {worker.wait()}, said {said!r}")


def _work(file: Path, seed: int) -> None:
    from selfpose.training.trial import Trial

    told = json.loads(file.read_text())
    context = TrialContext(
        store=Path(told["store"]),
        seed=seed,
        work=Path(told["work"]),
        products={name: Path(folder) for name, folder in told["products"].items()},
        device=told["device"],
    )
    trial = Trial(SelfPoseConfig.model_validate(told["config"]), context)

    def train() -> None:
        with contextlib.suppress(TrialFailedError):  # nothing is to be learned in so few steps
            trial.train(silent)
            trial.validate()

    train()
    print(READY, flush=True)
    for _ in sys.stdin:
        train()
        print(READY, flush=True)


if __name__ == "__main__":
    _work(Path(sys.argv[1]), int(sys.argv[2]))
