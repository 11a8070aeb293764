"""Trainables with the faults that users write; a worker finds them on its path.

`register` returns the environment of a command that may train them.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from posetune.api import Metric, TrialContext, TrialFailedError
from posetune.spec.registration import TRAINABLES_VARIABLE
from posetune.testing.toy import STEPS, Toy, ToyConfig

__all__ = [
    "CodeError",
    "CodeErrorAtStart",
    "Collapse",
    "Exit",
    "Leak",
    "NanFirst",
    "Never",
    "NumpyNumbers",
    "OddNames",
    "SignalledToyAtStart",
    "SpeaksToMlflow",
    "StuckToy",
    "Tensors",
    "faulty_environment",
]


def faulty_environment(cls: type[Toy]) -> dict[str, str]:
    """Return the variables with which a command finds and may train one of these classes."""
    folder = str(Path(__file__).parents[1])
    path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, TRAINABLES_VARIABLE: f"support.faulty:{cls.__name__}"}


class CodeError(Toy):
    """Has an error in its third epoch."""

    def epoch(self) -> Mapping[str, float]:
        """Train, and meet a name that is not there."""
        metrics = super().epoch()
        if self.steps >= 3 * STEPS:
            undefined_name + 1  # type: ignore[name-defined]  # noqa: F821
        return metrics


class CodeErrorAtStart(Toy):
    """Asks for a key that is not there when it starts."""

    def start(self, config: ToyConfig, context: TrialContext) -> None:
        """Start, and meet the error."""
        super().start(config, context)
        missing: dict[str, int] = {}
        missing["no such key"]


class Collapse(Toy):
    """Says itself, after its third epoch, that it has failed."""

    def epoch(self) -> Mapping[str, float]:
        """Train, and give up."""
        metrics = super().epoch()
        if self.steps >= 3 * STEPS:
            raise TrialFailedError("loss is NaN")
        return metrics


class NumpyNumbers(Toy):
    """Reports numbers as NumPy gives them."""

    def epoch(self) -> Mapping[str, Any]:
        """Train, and report scalars of float32."""
        return {name: np.float32(value) for name, value in super().epoch().items()}


class Tensors(Toy):
    """Reports its objective as a tensor, and a metric that it has not declared."""

    def epoch(self) -> Mapping[str, Any]:
        """Train, and report numbers of odd types and names."""
        import torch

        metrics: dict[str, Any] = dict(super().epoch())
        metrics["val/error_mm"] = torch.tensor(metrics["val/error_mm"])
        metrics["extra metric/é:%"] = np.float32(3)
        return metrics


class OddNames(Toy):
    """Has metrics with names as papers have them, and two hundred more that it has not declared."""

    metrics: ClassVar = {
        **Toy.metrics,
        "P-MPJPE (mm)": Metric("mm", "min", "As papers write it."),
        "PCK@150": Metric("", "max", "As papers write it."),
    }

    def epoch(self) -> Mapping[str, float]:
        """Train, and report them all."""
        more = {f"val/activity_{i}/mm": float(i) for i in range(200)}
        return {**super().epoch(), **more, "P-MPJPE (mm)": 1.0, "PCK@150": 0.5}


class Never(Toy):
    """Never reports its objective."""

    def epoch(self) -> Mapping[str, float]:
        """Train, and report the steps alone."""
        return {"train/step": super().epoch()["train/step"]}


class NanFirst(Toy):
    """Has no number for its objective in the first two epochs where x is above a half."""

    def epoch(self) -> Mapping[str, float]:
        """Train, and report NaN at first."""
        metrics = dict(super().epoch())
        if self.steps <= 2 * STEPS and self.config.x > 0.5:
            metrics["val/error_mm"] = float("nan")
        return metrics


class Exit(Toy):
    """Ends its process with an exit code, as a script does."""

    def epoch(self) -> Mapping[str, float]:
        """Leave."""
        sys.exit(3)


class SpeaksToMlflow(Toy):
    """Speaks to MLflow by itself, as people do."""

    def epoch(self) -> Mapping[str, float]:
        """Train, and log a metric beside the platform."""
        import mlflow

        metrics = super().epoch()
        mlflow.log_metric("mine", 1.0, step=self.steps)
        return metrics


class Leak(Toy):
    """Leaves every state of its process changed after its first epoch, and reports it before."""

    reusable: ClassVar[bool] = False
    counter: ClassVar[list[Any]] = []

    def epoch(self) -> Mapping[str, float]:
        """Train, report the state of the process, and change all of it."""
        import torch

        umask = os.umask(0)
        os.umask(umask)
        gc.collect()
        state = {
            "item": torch.ones(1).element_size(),
            "threads": torch.get_num_threads(),
            "python_threads": sum(t.name == "left by a trial" for t in threading.enumerate()),
            "environment": len(os.environ.get("LEAKED", "")),
            "folder": Path.cwd() == Path("/"),
            "grad": torch.is_grad_enabled(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "flush": (torch.tensor([1e-40], dtype=torch.float32) * 1)[0] == 0,
            "numpy": np.geterr()["divide"] == "raise",
            "umask": umask,
            "class": len(self.counter),
            "path": "/left-by-a-trial" in sys.path,
            "files": sum(_leads_to("/dev/zero", link) for link in Path("/proc/self/fd").iterdir()),
        }
        reported = {f"state/{name}": float(value) for name, value in state.items()}
        metrics = {**super().epoch(), **reported}
        if self.steps == STEPS:
            self._leak()
        return metrics

    def _leak(self) -> None:
        import torch

        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(3)
        torch.use_deterministic_algorithms(True)
        torch.set_flush_denormal(True)
        torch.set_grad_enabled(False)
        np.seterr(all="raise")
        os.environ["LEAKED"] = "xxxxx"
        os.chdir("/")
        os.umask(0o077)
        sys.path.insert(0, "/left-by-a-trial")
        wait = threading.Event().wait
        threading.Thread(target=wait, name="left by a trial", daemon=True).start()
        self.counter.append(Path("/dev/zero").open("rb"))  # noqa: SIM115 - it is left open


def _leads_to(file: str, link: Path) -> bool:
    try:
        return str(link.readlink()) == file
    except OSError:
        return False


class SignalledToyAtStart(Toy):
    """Is told to stop at the beginning of its second epoch, each time."""

    def epoch(self) -> Mapping[str, float]:
        """Train, unless it is told to stop before the first step."""
        if self.steps >= STEPS:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().epoch()


class StuckToy(Toy):
    """Hangs in the second epoch of its first attempt."""

    def epoch(self) -> Mapping[str, float]:
        """Train, and wait for ever where nobody has waited before."""
        mark = Path(self.config.say)
        if self.steps == STEPS and not mark.exists():
            mark.touch()
            time.sleep(3600)
        return super().epoch()
