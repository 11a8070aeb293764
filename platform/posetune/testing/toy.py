"""Defines a complete trainable that finishes in milliseconds, for tests and as an example.

It descends a noisy bowl: `x` is the learning rate, `depth` selects a shared stage (the bowl's
floor). Its model answers every image with one constant pose.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import load_file, save_file

from posetune.accelerator import Accelerator, DeviceMemory
from posetune.api import (
    BadInputError,
    Contest,
    Cost,
    Evaluation,
    Importer,
    Metric,
    Progress,
    Stage,
    StageWork,
    StoreSummary,
    TrialContext,
    TrialFailedError,
    silent,
)

__all__ = ["STEPS", "Toy", "ToyConfig"]

STEPS = 10
"""Steps of an epoch."""

_POSE = ((0, 0, 0), (-1, 0, 0), (1, 0, 0))


class ToyConfig(BaseModel):
    """Holds the fields that a sweep of the toy can search or fix."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    x: float = Field(0.3, ge=0.0, le=2.0, description="Learning rate.")
    depth: int = Field(
        4, ge=1, le=16, description="Number that decides which shared stage the trial uses."
    )
    epoch_s: float = Field(0.0, ge=0.0, description="Least number of seconds of an epoch.")
    stage_s: float = Field(0.0, ge=0.0, description="Least number of seconds of the stage.")
    fail_above: float = Field(9.0, description="Highest x of a trial that does not diverge.")
    say: str = Field("", description="Text that each epoch prints.")
    stuck_above: float = Field(
        9.0, description="Highest x of a trial that does not hang in its first step."
    )
    hold_mb: int = Field(
        0, ge=0, description="Main memory that a trial holds from its start, in MB."
    )
    hold_later_mb: int = Field(
        0, ge=0, description="Main memory that a trial holds from its second epoch on, in MB."
    )
    die_above: float = Field(9.0, description="Highest x of a trial whose process is not killed.")
    curve: str = Field(
        "",
        pattern=r"^([0-9.]+(,[0-9.]+)*)?$",
        description="Values of val/error_mm after each epoch, less x, with commas between; the "
        "exported pose is as far off. Without it, the bowl's noisy descent is reported.",
    )
    script: str = Field(
        "",
        description="A file of lines. A process in the middle of an epoch takes the first line "
        "away and does as it says: `go` on, `wait FILE` until that file is there, raise "
        "`MemoryError` or torch's `OutOfMemoryError`, or send itself a signal such as SIGKILL. "
        "Without a line it goes on.",
    )


class ToyImport(BaseModel):
    """Options of the toy's data format."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(8, ge=1)
    seed: int = Field(0, ge=0)


class ToyPredictor:
    """Answers every image with one constant pose."""

    joint_names: Sequence[str] = ("root", "left", "right")
    limbs: Sequence[tuple[int, int]] = ((1, 0), (2, 0))

    def __init__(self, pose_j3: NDArray[np.float32], image_size: int) -> None:
        self.pose_j3 = pose_j3
        self.image_size = image_size

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the constant pose for each image: (N, 3, 3) for images (N, S, S, 3)."""
        return np.repeat(self.pose_j3[None], len(images), axis=0)


class ToyDevice:
    """Plays a GPU with a part of the main memory, where Ray was told of GPUs that are not there."""

    name = "toy"
    total = 10**9

    def is_there(self) -> bool:
        """Return whether Ray gave this process a GPU."""
        return bool(os.environ.get("CUDA_VISIBLE_DEVICES"))

    def describe(self) -> str:
        """Return the name of the device."""
        return self.name

    def reset(self) -> None:
        """Begin to count what Python allocates."""
        tracemalloc.stop()
        tracemalloc.start()

    def memory(self) -> DeviceMemory:
        """Return the most that was allocated at once."""
        return DeviceMemory(tracemalloc.get_traced_memory()[1], 0, self.total)

    def energy_j(self, devices: int) -> float | None:
        """Return None: memory has no counter."""
        return None


class Toy:
    """Descends a noisy bowl and answers every image with one constant pose."""

    config = ToyConfig()
    """The configuration; `start` sets another one."""
    reusable: ClassVar[bool] = True
    accelerator: ClassVar[Accelerator] = ToyDevice()
    config_model: ClassVar[type[BaseModel]] = ToyConfig
    metrics: ClassVar[Mapping[str, Metric]] = {
        "val/error_mm": Metric("mm", "min", "Distance from the bowl's floor."),
        "train/step": Metric("", "max", "Steps done."),
    }

    @classmethod
    def importers(cls) -> Mapping[str, Importer]:
        """Return the only format, whose store is made of nothing."""
        return {"toy": Importer("A store made of nothing.", False, ToyImport, _import)}

    @classmethod
    def describe_store(cls, store: Path) -> StoreSummary:
        """Read the store's only file."""
        file = store / "toy.json"
        try:
            if file.exists() and not (file.is_file() and file.stat().st_size < 10_000):
                raise ValueError("toy.json is no small file")
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise BadInputError(f"{store}: is no toy store ({error})") from error
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return StoreSummary(digest, {"val": 1}, {"format": "toy"})

    @classmethod
    def draw_store(cls, store: Path, out: Path) -> None:
        """Write an empty picture."""
        _draw(out)

    @classmethod
    def stages(cls, config: ToyConfig, store: Path) -> Sequence[Stage]:
        """Return the bowl's floor for a depth."""

        def build(folder: Path, progress: Progress, work: StageWork) -> None:
            time.sleep(config.stage_s)
            (folder / "floor.json").write_text(json.dumps(abs(config.depth - 6) / 10))
            progress(1, 1)

        return [Stage("floor", {"depth": config.depth}, ["posetune.testing.toy"], 0, build)]

    @classmethod
    def baselines(cls, products: Mapping[str, Path], metric: str) -> Mapping[str, float]:
        """Return the objective of a model that never moves."""
        return {"start": 2.0}

    @classmethod
    def note_of_extension(cls, config: ToyConfig) -> str:
        """Say nothing: the learning rate is constant."""
        return ""

    @classmethod
    def forecast(cls, config: ToyConfig, context: TrialContext) -> Cost:
        """Return the cost that the configuration's fields name."""
        np.ones(config.hold_mb * 10**6, np.uint8)
        return Cost(config.epoch_s, {"floor": config.stage_s}, 1000, 200)

    def start(self, config: ToyConfig, context: TrialContext) -> None:
        """Begin at the bowl's rim."""
        self.config, self.context = config, context
        self.generator = np.random.default_rng(context.seed)
        self.position = np.full(3, 2.0)
        self.steps = 0
        self.held = np.ones(config.hold_mb * 10**6, np.uint8)
        floor = context.products["floor"] / "floor.json"
        self.floor = float(json.loads(floor.read_text(encoding="utf-8")))

    def epoch(self) -> Mapping[str, float]:
        """Descend what is left of ten noisy steps."""
        if self.config.x > self.config.fail_above:
            raise TrialFailedError(f"diverged: x = {self.config.x:g}")
        if self.config.x > self.config.stuck_above:
            time.sleep(3600)
        if self.config.say:
            print(self.config.say, flush=True)  # noqa: T201 - to see where it goes
        if self.steps >= STEPS and len(self.held) < self.config.hold_later_mb * 10**6:
            self.held = np.ones(self.config.hold_later_mb * 10**6, np.uint8)
        for step in range(self.steps % STEPS, STEPS):
            self.context.progress(self.steps, STEPS * self.context.max_epochs)
            time.sleep(self.config.epoch_s / STEPS)
            if step == STEPS // 2:
                self._follow_script()
            noise = self.generator.normal(0, 0.05, 3)
            self.position = self.position - 0.1 * self.config.x * (self.position + noise)
            self.steps += 1
        error = self._error()
        return {"val/error_mm": error, "train/step": float(self.steps)}

    def _error(self) -> float:
        if not self.config.curve:
            return float(np.linalg.norm(self.position)) + self.floor
        curve = [float(value) for value in self.config.curve.split(",")]
        return curve[self.steps // STEPS - 1] + self.config.x

    def _follow_script(self) -> None:
        what, _, argument = _take_line(self.config.script).partition(" ")
        if what == "wait":
            while not Path(argument).exists():
                self.context.progress(self.steps, STEPS * self.context.max_epochs)
                time.sleep(0.02)
        elif what == "MemoryError":
            raise MemoryError("out of memory in the middle of an epoch")
        elif what == "OutOfMemoryError":
            import torch

            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        elif what != "go" or self.config.x > self.config.die_above:
            os.kill(os.getpid(), signal.SIGKILL if what == "go" else signal.Signals[what])

    def save(self, folder: Path) -> None:
        """Write position, steps and the generator's state."""
        save_file({"position": self.position}, folder / "toy.safetensors")
        state = {"steps": self.steps, "generator": self.generator.bit_generator.state}
        (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        self.position = load_file(folder / "toy.safetensors")["position"]
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        self.steps = state["steps"]
        self.generator.bit_generator.state = state["generator"]

    def export(self, folder: Path) -> None:
        """Write the constant pose, as far off as the made-up curve says."""
        off = self._error() if self.config.curve else 0.0
        pose = np.array(_POSE, np.float32) + np.float32(off)
        save_file({"pose": pose}, folder / "model.safetensors")

    def draw(self, folder: Path) -> None:
        """Write one picture."""
        _draw(folder / "toy.png")

    @classmethod
    def evaluate(
        cls, exported: Path, store: Path, split: str, progress: Progress = silent
    ) -> Evaluation:
        """Compare the constant pose with thirty motions that stray about the true one."""
        pose_j3 = cls.load_model(exported).pose_j3
        motion = np.repeat(np.arange(30), 4)
        strayed = np.random.default_rng(len(split)).normal(0, 0.3, (30, 3, 3))
        truth_nj3 = np.array(_POSE) + strayed[motion]
        error = np.linalg.norm(truth_nj3 - pose_j3, axis=-1).mean(axis=1)
        at_rest = np.linalg.norm(truth_nj3, axis=-1).mean(axis=1)
        progress(len(error), len(error))
        records: dict[str, NDArray[Any]] = {
            "error_mm": error,
            "at_rest_mm": at_rest,
            "motion": motion,
            "activity": motion % 2,
            "group": motion % 2,
        }
        return Evaluation(
            metrics={f"{split}/error_mm": float(error.mean())},
            baselines={"at_rest": float(at_rest.mean())},
            records=records,
            details={"toy_error_mm": float(error.mean())},
            contest=Contest(
                score="error_mm",
                unit="mm",
                sees="images",
                rivals={"at rest": "at_rest_mm"},
                activities=("odd", "even"),
            ),
        )

    @classmethod
    def load_model(cls, exported: Path) -> ToyPredictor:
        """Read what `export` wrote."""
        return ToyPredictor(load_file(exported / "model.safetensors")["pose"], image_size=8)

    @classmethod
    def export_graph(cls, exported: Path, out: Path) -> float:
        """Refuse: the toy is no torch program."""
        raise BadInputError("the toy is no torch program and cannot be exported as one")


def _import(file: Path | None, out: Path, options: ToyImport, progress: Progress) -> None:
    out.mkdir(parents=True)
    (out / "toy.json").write_text(json.dumps(options.model_dump()), encoding="utf-8")
    progress(1, 1)


def _take_line(script: str) -> str:
    """Return the first line of a script and take it away; `go` where there is none."""
    if not script or not Path(script).exists():
        return "go"
    with Path(script).open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # trials at the same time take different lines
        first, *rest = file.read().splitlines() or ["go"]
        file.seek(0)
        file.write("".join(f"{line}\n" for line in rest))
        file.truncate()
    return first


def _draw(out: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([0, 1], [0, 1])
    figure.savefig(out)
