"""Runs a trial in a process of its own, alone or after another trial that left a mess behind.

`posetune.testing.conformance` compares the two. It is run as
`python -m posetune.testing.reuse REQUEST`, where REQUEST is a JSON file with the fields of
`Request`; it prints an `Outcome` as JSON.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from posetune.api import TrialContext
from posetune.metrics import read_metrics
from posetune.spec.loading import configure
from posetune.spec.registration import import_trainable
from posetune.storage.digest import digest_folder
from posetune.trial.worker.process_state import ProcessState, seed_process

__all__ = ["LEFT_FILE", "LEFT_THREAD", "Outcome", "Request", "run_request"]

LEFT_FILE = "/dev/zero"
LEFT_THREAD = "left by a trial"
"""What the mess holds that cannot be put back, so that it must be named."""


@dataclass(frozen=True)
class Request:
    """Describes a trial of one epoch."""

    trainable: str
    """Name of the class, as `package.module:Class`."""
    fields: Mapping[str, Any]
    """Fields of its configuration, by dotted name."""
    store: str
    """Folder of the store."""
    products: Mapping[str, str]
    """Folder of each stage product, by the stage's name."""
    after_another: bool
    """Whether another trial runs in the same process before, and leaves a mess behind."""


@dataclass(frozen=True)
class Outcome:
    """Holds what the trial came to, and what its process was like afterwards."""

    metrics: Mapping[str, float]
    """What the trial reported."""
    model: str
    """Digest of its exported model."""
    process: Mapping[str, Any]
    """What the process was like at its end: settings, and what its shared generators draw next."""
    left: list[str]
    """What the trial before left that could not be put back, in words."""


def run_request(request: Request) -> Outcome:
    """Run the trial in this process, which should be a new one."""
    trainable = import_trainable(request.trainable)
    before = ProcessState()
    left: list[str] = []
    if request.after_another:
        _run_trial(request, seed=7)
        mess = _Mess()
        left = before.restore()
        mess.clean_up()
    metrics, model = _run_trial(request, seed=3)
    lacking = trainable.describe_store(Path(request.store)).unavailable
    declared = [name for name in trainable.metrics if name not in lacking]
    return Outcome(read_metrics(metrics, declared=declared), model, _describe_process(), left)


def _run_trial(request: Request, *, seed: int) -> tuple[Mapping[str, float], str]:
    """Train one epoch; return what was reported and the digest of the exported model."""
    trainable = import_trainable(request.trainable)
    config = configure(trainable.config_model, request.fields, {})
    with tempfile.TemporaryDirectory(prefix="posetune-reuse-") as folder:
        work, exported = Path(folder) / "work", Path(folder) / "exported"
        work.mkdir()
        exported.mkdir()
        products = {name: Path(product) for name, product in request.products.items()}
        context = TrialContext(
            store=Path(request.store), seed=seed, work=work, products=products, max_epochs=2
        )
        trial = trainable()
        seed_process(seed)
        trial.start(config, context)
        metrics = trial.epoch()
        trial.export(exported)
        trial.draw(work)
        return metrics, digest_folder(exported)


class _Mess:
    """What a careless trial leaves of its process: everything that a process keeps is changed."""

    def __init__(self) -> None:
        np.seterr(all="raise")
        os.environ["LEFT_BY_A_TRIAL"] = "x"
        os.environ.pop("HOME", None)
        os.chdir("/")
        os.umask(0o007)
        sys.path.insert(0, "/left-by-a-trial")
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_default_dtype(torch.float64)
            torch.set_num_threads(3)
            torch.use_deterministic_algorithms(True)
            torch.set_flush_denormal(True)
            torch.set_grad_enabled(False)
            torch.backends.cudnn.benchmark = True
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ended.wait, name=LEFT_THREAD, daemon=True)
        self._thread.start()
        self._file: IO[bytes] = Path(LEFT_FILE).open("rb")  # noqa: SIM115 - it is left open

    def clean_up(self) -> None:
        """End the thread and close the file, which only a new process does otherwise."""
        self._ended.set()
        self._thread.join()
        self._file.close()


def _describe_process() -> dict[str, Any]:
    """Return the settings of this process, and what its shared generators draw next."""
    found: dict[str, Any] = {
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "path": list(sys.path),
        "numpy": dict(np.geterr()),
        "draws": [random.random(), float(np.random.rand())],  # noqa: NPY002 - the shared one
        "umask": os.umask(0o077),
    }
    os.umask(found["umask"])
    torch = sys.modules.get("torch")
    if torch is not None:
        denormal = torch.tensor([1e-40], dtype=torch.float32) * 1
        found["torch"] = {
            "dtype": str(torch.get_default_dtype()),
            "threads": torch.get_num_threads(),
            "gradients": torch.is_grad_enabled(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "flushes": bool(denormal[0] == 0),
            "benchmark": torch.backends.cudnn.benchmark,
            "draw": float(torch.rand(1)[0]),
        }
    return found


if __name__ == "__main__":
    asked = Request(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    sys.stdout.write(json.dumps(asdict(run_request(asked))))
