"""What a trainable must offer, and all that a trainable may import of the platform.

A trainable is a class that follows `Trainable`. The platform finds it by name
(`package.module:Class`, as written in the sweep file), gives it a frozen configuration and a
`TrialContext`, and calls `start`, then `epoch` again and again, `save` after each epoch and
`export` and `draw` after the last. It runs in this process (`posetune train`) or as a Ray actor
without noticing which.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from posetune.accelerator import CUDA, Accelerator
from posetune.resampling import MotionBootstrap, interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import BaseModel

__all__ = [
    "BadInputError",
    "Contest",
    "Cost",
    "Evaluation",
    "Importer",
    "Metric",
    "MotionBootstrap",
    "Predictor",
    "Progress",
    "Stage",
    "StoreSummary",
    "Trainable",
    "TrialContext",
    "TrialFailedError",
    "interval",
    "silent",
]


class BadInputError(ValueError):
    """Something the user gave cannot be used. Shown as one line, without a traceback; exit code 2.

    The message says what was wrong, the value, where it came from and what to do.
    """


class TrialFailedError(RuntimeError):
    """A trial cannot go on and must not be tried again: it diverged or collapsed. Says why."""


class Progress(Protocol):
    """Receives how far a long piece of work has come."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Say that `done` of `total` units are finished; `note` is a short text for the line."""


def silent(done: int, total: int, note: str = "") -> None:
    """Ignore progress (the default `Progress`)."""


@dataclass(frozen=True)
class Metric:
    """One number that a trainable reports every epoch."""

    unit: str
    mode: Literal["min", "max"]
    help: str


@dataclass(frozen=True)
class Importer:
    """One data format of `posetune data import`."""

    summary: str
    needs_file: bool
    """Whether the format reads a file or folder, named on the command line."""
    options: type[BaseModel]
    """The options the format takes; forbids others, so that a misplaced option is named."""
    run: Callable[[Path | None, Path, Any, Progress], None]
    """`run(file, out, options, progress)` makes the store `out`; raises `BadInputError`."""


@dataclass(frozen=True)
class StoreSummary:
    """What is in a store, for people and for lineage."""

    digest: str
    """Changes with any byte of the data."""
    rows: Mapping[str, int]
    """Rows of each split."""
    facts: Mapping[str, str]
    """What to print: format, layout, image size, licence, ..."""
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """Metrics that cannot be computed on this store, and what it lacks for them."""


@dataclass(frozen=True)
class Stage:
    """A shared pre-computation: built once for all trials whose key is equal.

    The key is the digest of `name`, `reads`, `seed`, the store's digest and the source text of
    the modules in `sources`.
    """

    name: str
    reads: Mapping[str, Any]
    """The configuration fields that change the product (JSON values)."""
    sources: Sequence[str]
    """Names of the modules whose source changes the product."""
    seed: int
    build: Callable[[Path, Progress], None]
    """`build(folder, progress)` writes the product's files into the empty `folder`."""


@dataclass(frozen=True)
class TrialContext:
    """Where and with what one trial runs."""

    store: Path
    seed: int
    work: Path
    """A scratch folder of this trial alone."""
    products: Mapping[str, Path] = field(default_factory=dict)
    """The verified folder of each stage that `Trainable.stages` named."""
    device: str = "cpu"
    threads: int = 1
    gpu_share: float = 1.0
    """Part of a GPU's memory that is this trial's, where several share one."""
    rank: int = 0
    processes: int = 1
    """How many train this trial together, and which of them this is. With several, they stand in
    torch.distributed's default group, and only the one of rank 0 saves, exports and draws."""
    max_epochs: int = 1
    progress: Progress = silent
    """Call it between steps. It may raise, when the trial is told to hand over: let it pass.
    Processes that train together must all call it after the same steps."""


@dataclass(frozen=True)
class Contest:
    """Which columns of `Evaluation.records` decide between two models, frame by frame."""

    score: str
    """The error that is compared: lower is better."""
    unit: str
    """Unit of the score and of the rivals, e.g. mm."""
    sees: str
    """What the model was given, e.g. images; models that see different things have no contest."""
    rivals: Mapping[str, str]
    """Name to column: what the same frames score without this kind of model. They never use the
    truth; who beats none of them has learned nothing."""
    activities: Sequence[str]
    """Names that the column `activity` indexes. The column `group` (integers from 0) says whose
    means the macro average is of, and `motion` which frames belong together."""


@dataclass(frozen=True)
class Evaluation:
    """The result of an exported model on one split of a store."""

    metrics: Mapping[str, float]
    baselines: Mapping[str, float]
    """The trivial baselines on the same frames, same unit as the main metric."""
    records: Mapping[str, NDArray[Any]]
    """One array per column, one entry per frame."""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """PNG files by name."""
    tables: Mapping[str, str] = field(default_factory=dict)
    """Text files (Markdown, CSV) by name."""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """The 95 % interval of each metric and baseline, by the same names."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else a reader should know: counts, per-activity averages (JSON values)."""
    contest: Contest | None = None
    """How promotion compares two models; None where they cannot be compared."""


@dataclass(frozen=True)
class Cost:
    """What one trial takes, from a measured step."""

    epoch_s: float
    """Seconds of an epoch with its validation, on the device and threads asked about."""
    stages_s: Mapping[str, float]
    """Seconds to build each of its stages."""
    checkpoint_bytes: int
    """Size of what `save` writes."""
    model_bytes: int
    """Size of what `export` and `draw` write."""


class Predictor(Protocol):
    """An exported model, ready to use."""

    image_size: int
    """S: the model takes square images of this side, in pixels."""
    joint_names: Sequence[str]
    limbs: Sequence[tuple[int, int]]
    """The joints between which to draw lines."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return root-centred poses (N, J, 3) with mean bone length 1 for images (N, S, S, 3).

        Poses are in camera axes: x right, y down, z away from the camera.
        """


class Trainable(Protocol):
    """One kind of model that the platform can search over.

    A class that names it as its base inherits what has a body here: no stages, no baselines, no
    contact sheet, and a forecast that trains one epoch.
    """

    config_model: ClassVar[type[BaseModel]]
    """Frozen, bounded, documented; every field may be searched or fixed by its dotted name."""
    metrics: ClassVar[Mapping[str, Metric]]
    """Every metric that `epoch` returns, on a store that allows it."""
    parallel: ClassVar[bool] = False
    """Whether several processes can train one trial together, see `TrialContext.processes`."""
    accelerator: ClassVar[Accelerator] = CUDA
    """What trials with `resources.gpu` train on."""

    @classmethod
    def importers(cls) -> Mapping[str, Importer]:
        """Return the data formats that `posetune data import` offers, by name."""

    @classmethod
    def describe_store(cls, store: Path) -> StoreSummary:
        """Say what is in a store; raises `BadInputError` if it is not one."""

    @classmethod
    def draw_store(cls, store: Path, out: Path) -> None:
        """Write a contact sheet of a store as the PNG file `out`."""
        raise BadInputError(f"{store}: {cls.__name__} draws no contact sheet")

    @classmethod
    def stages(cls, config: Any, store: Path) -> Sequence[Stage]:
        """Return the shared pre-computations that a trial with this configuration needs."""
        return ()

    @classmethod
    def baselines(cls, products: Mapping[str, Path], metric: str) -> Mapping[str, float]:
        """Return the trivial baselines of one metric on validation, in its unit, by name.

        `products` are finished stage products; an empty mapping is returned when the stage that
        holds the baselines is not among them, or there are none for this metric.
        """
        return {}

    @classmethod
    def forecast(cls, config: Any, context: TrialContext) -> Cost:
        """Measure one step and say what a trial takes; no stage products are given or needed."""
        trial, began = cls(), time.perf_counter()
        trial.start(config, context)
        trial.epoch()
        seconds = time.perf_counter() - began
        state, result = context.work / "state", context.work / "result"
        for folder, write in ((state, (trial.save,)), (result, (trial.export, trial.draw))):
            folder.mkdir(parents=True)
            for part in write:
                part(folder)
        sizes = [sum(p.stat().st_size for p in f.rglob("*")) for f in (state, result)]
        return Cost(seconds, {}, *sizes)

    def start(self, config: Any, context: TrialContext) -> None:
        """Build everything for one trial. May be called again for another trial."""

    def epoch(self) -> Mapping[str, float]:
        """Train one epoch, validate, and return every metric of `metrics` that the store allows.

        `context.progress` may raise between two steps; `save` is called then, and the epoch goes
        on from there after a `load`, here or on another node.

        Raises:
            TrialFailedError: the trial diverged or collapsed.
        """

    def save(self, folder: Path) -> None:
        """Write everything that an exact continuation needs into the empty `folder`.

        Called after an epoch, or after one that `context.progress` broke off.
        """

    def load(self, folder: Path) -> None:
        """Continue exactly from what `save` wrote; called after `start`."""

    def export(self, folder: Path) -> None:
        """Write inference weights (safetensors) and what loads them into the empty `folder`."""

    def draw(self, folder: Path) -> None:
        """Write figures of the trial's present state (PNG) into the empty `folder`."""

    @classmethod
    def evaluate(
        cls, exported: Path, store: Path, split: str, progress: Progress = silent
    ) -> Evaluation:
        """Evaluate an exported model on a split."""

    @classmethod
    def load_model(cls, exported: Path) -> Predictor:
        """Load what `export` wrote."""

    @classmethod
    def export_graph(cls, exported: Path, out: Path) -> float:
        """Write an exported model as a `torch.export` program that runs without its code.

        It takes uint8 images (N, S, S, 3), any N, and returns what `Predictor` does. Returns the
        largest difference between the two, found by running what was written.

        Raises:
            BadInputError: the model has no such form.
        """
        raise BadInputError(f"{exported}: {cls.__name__} has no form as a graph")
