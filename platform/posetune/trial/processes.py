"""Lets several processes train one trial together; the trial's own is the first and starts them.

They meet in torch.distributed's default group, nccl on GPUs and gloo without. The others obey
lines of JSON on their standard input and end with it; `main` is what they run.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from posetune.api import TrialContext, TrialFailedError
from posetune.spec.loading import configure
from posetune.spec.parameters import Scalar
from posetune.spec.registration import load_trainable
from posetune.spec.sweep import SweepSpec
from posetune.trial.worker.foreign_mlflow import mlflow_refused
from posetune.trial.worker.process_state import seed_process

__all__ = ["TrialProcesses", "main"]

GRACE_S = 5.0
"""Seconds to wait after a process is lost: the step that it shared with the others should fail by
itself; if it does not, this process is ended."""


class TrialProcesses:
    """The other processes of a trial, as the first one sees them."""

    def __init__(
        self, spec: SweepSpec, params: Mapping[str, Scalar], context: TrialContext
    ) -> None:
        """Start the processes and wait for them; `self.context` is then the first one's context."""
        start = {
            "spec": spec.canonical(),
            "params": dict(params),
            "store": str(context.store),
            "seed": context.seed,
            "work": str(context.work),
            "products": {name: str(folder) for name, folder in context.products.items()},
            "device": context.device,
            "threads": context.threads,
            "processes": context.processes,
            "max_epochs": context.max_epochs,
        }
        self._closing = False
        self._others = [_start(start, rank) for rank in range(1, context.processes)]
        for rank, other in enumerate(self._others, start=1):
            threading.Thread(target=self._watch, args=(other, rank), daemon=True).start()
        self.context = _meet(context)

    def between_steps(self, told: Callable[[], bool]) -> bool:
        """Return whether all processes must stop; every process calls this at the same steps."""
        return _agree(self.context, told())

    def tell(self, what: str, value: str = "") -> None:
        """Tell the others what this process does next: `load` a folder, or train an `epoch`."""
        for other in self._others:
            _send(other, {what: value})

    def close(self) -> None:
        """End the other processes."""
        import torch.distributed as dist

        self._closing = True
        for other in self._others:
            assert other.stdin is not None
            other.stdin.close()
        for other in self._others:
            other.wait()
        if dist.is_initialized():
            dist.destroy_process_group()

    def _watch(self, other: subprocess.Popen[str], rank: int) -> None:
        """End this process when another is lost and the step they share does not fail by it."""
        code = other.wait()
        time.sleep(0 if self._closing else GRACE_S)
        if not self._closing:
            print(f"process {rank} of the trial is gone (exit code {code})", file=sys.stderr)  # noqa: T201
            os._exit(1)


def _start(start: Mapping[str, Any], rank: int) -> subprocess.Popen[str]:
    other = subprocess.Popen(
        [sys.executable, "-c", "from posetune.trial.processes import main; main()"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that Ctrl-C reaches the first process only
    )
    _send(other, {**start, "rank": rank})
    return other


def _send(other: subprocess.Popen[str], message: Mapping[str, Any]) -> None:
    assert other.stdin is not None
    try:
        other.stdin.write(json.dumps(message) + "\n")
        other.stdin.flush()
    except BrokenPipeError:
        return  # the process is lost: the next step fails, or `_watch` ends this process


def _meet(context: TrialContext) -> TrialContext:
    """Wait until all processes have joined, and return this one's context with its own device."""
    import torch
    import torch.distributed as dist

    on_gpu = context.device == "cuda"
    if on_gpu:
        torch.cuda.set_device(context.rank)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"file://{context.work.absolute()}/meeting",
        rank=context.rank,
        world_size=context.processes,
    )
    return replace(context, device=f"cuda:{context.rank}" if on_gpu else context.device)


def _agree(context: TrialContext, told: bool) -> bool:
    """Return in every process whether the first one was told to stop."""
    import torch
    import torch.distributed as dist

    flag = torch.tensor([int(told)], device=context.device)
    dist.broadcast(flag, src=0)
    return bool(flag.item())


class _Stop(BaseException):
    """Is raised in every process of a trial that must stop where it is."""


@mlflow_refused()
def main() -> None:
    """Run as a process of rank 1 or higher, until standard input ends."""
    orders: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read, args=(orders,), daemon=True).start()
    start = orders.get()
    context = _meet(
        TrialContext(
            store=Path(start["store"]),
            seed=start["seed"],
            work=Path(start["work"]),
            products={name: Path(folder) for name, folder in start["products"].items()},
            device=start["device"],
            threads=start["threads"],
            rank=start["rank"],
            processes=start["processes"],
            max_epochs=start["max_epochs"],
        )
    )

    def between_steps(done: int, total: int, note: str = "") -> None:
        if _agree(context, told=False):
            raise _Stop

    spec = SweepSpec.model_validate(start["spec"])
    trainable = load_trainable(spec.trainable)()
    config = configure(trainable.config_model, spec.fixed, start["params"])
    seed_process(context.seed)
    trainable.start(config, replace(context, progress=between_steps))
    while True:
        order = orders.get()
        if "load" in order:
            trainable.load(Path(order["load"]))
            _agree(context, told=False)
            continue
        with contextlib.suppress(_Stop, TrialFailedError):  # the first process reports it
            trainable.epoch()


def _read(orders: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        orders.put(json.loads(line))
    # The first process has ended, so nobody waits for the step that is under way here.
    os._exit(0)
