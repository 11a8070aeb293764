"""Defines what a trainable must offer; a trainable imports nothing else of the platform.

One idea, the whole contract in one place, so it is long.

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
from posetune.metrics import MetricError, read_metrics
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
    "StageWork",
    "StoreSummary",
    "Trainable",
    "TrialContext",
    "TrialFailedError",
    "input_notes",
    "interval",
    "is_reusable",
    "silent",
]


class BadInputError(ValueError):
    """Says that something the user gave cannot be used.

    The message says what was wrong, the value, where it came from and what to do. A command shows
    it as one line, without a traceback, and ends with exit code 2.
    """


class TrialFailedError(RuntimeError):
    """Says why a trial cannot go on and must not be tried again: it diverged or collapsed."""


class Progress(Protocol):
    """Receives how far a long piece of work has come."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Take note that `done` of `total` units of work are finished.

        Args:
            done: number of units that are finished.
            total: number of units of the whole work.
            note: a short text that is shown behind the two numbers.
        """


def silent(done: int, total: int, note: str = "") -> None:
    """Ignore progress (the default `Progress`)."""


@dataclass(frozen=True)
class Metric:
    """Describes one number that a trainable reports every epoch."""

    unit: str
    """Unit of the number in tables and charts, e.g. mm; "1" for a number without a unit."""
    mode: Literal["min", "max"]
    """Whether a lower (`min`) or a higher (`max`) number is better."""
    help: str
    """Explanation of the number for people, in one line."""


@dataclass(frozen=True)
class Importer:
    """Describes one data format of `posetune data import`."""

    summary: str
    """What the format holds, in one line for the command's list of formats."""
    needs_file: bool
    """Whether the format reads a file or folder that is named on the command line."""
    options: type[BaseModel]
    """Model of the options that the format takes. It must forbid unknown fields, so that an option
    of another format is refused by its name."""
    run: Callable[[Path | None, Path, Any, Progress], None]
    """Makes a store: `run(file, out, options, progress)` writes the store `out` from `file` (None
    for a format that needs none) and raises `BadInputError` for data that cannot be used."""


@dataclass(frozen=True)
class StoreSummary:
    """Describes what is in a store, for people and for the record of where a result comes from."""

    digest: str
    """Digest of the store's content: it changes with any byte of the data."""
    rows: Mapping[str, int]
    """Number of rows of each split, by the split's name."""
    facts: Mapping[str, str]
    """Facts to print, by their name: format, layout, image size, licence and so on."""
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """Metrics that cannot be computed on this store, each with what the store lacks for it."""
    quality: Mapping[str, str] = field(default_factory=dict)
    """What the import left out and what its checks measured, by name. It stands on every version
    of a model that is registered."""


class StageWork:
    """Keeps how far the building of a stage has come, so that another attempt goes on from there.

    A stage may have several parts, one after the other; each has a state of its own. This class
    keeps nothing. What the platform gives to `Stage.build` keeps states until the product is
    published, and they outlive a process that is killed.
    """

    def due(self) -> bool:
        """Return whether the last state is so old that it is time to save another."""
        return False

    def save(self, part: str, write: Callable[[Path], None]) -> None:
        """Keep the present state of a part, instead of the one before.

        Args:
            part: name of the part: letters, digits and hyphens.
            write: writes the state's files into the empty folder that it is given.
        """

    def load(self, part: str, read: Callable[[Path], None]) -> bool:
        """Give the state of a part that an earlier attempt saved last.

        Args:
            part: name of the part.
            read: restores the state from the folder that it is given; it is not called if there is
                no state that is whole.

        Returns:
            Whether `read` was called.
        """
        return False


@dataclass(frozen=True)
class Stage:
    """Describes a shared pre-computation, which is built once for all trials with an equal key.

    The key is the digest of `name`, `reads`, `seed`, the store's digest and the source text of
    the modules in `sources` and of all modules that these import from their own package.
    """

    name: str
    """Name of the stage; `TrialContext.products` gives the folder of its product by this name."""
    reads: Mapping[str, Any]
    """Configuration fields that change the product, each with its value (JSON values)."""
    sources: Sequence[str]
    """Names of the modules that build the product; what they import is found by itself."""
    seed: int
    """Seed of the pre-computation; stages with different seeds have products of their own."""
    build: Callable[[Path, Progress, StageWork], None]
    """Builds the product: `build(folder, progress, work)` writes its files into the empty `folder`.
    A build of many steps saves its state in `work` now and then, and goes on from what it finds
    there."""


@dataclass(frozen=True)
class TrialContext:
    """Tells a trial where it runs and with what."""

    store: Path
    """Folder of the prepared data."""
    seed: int
    """Seed of everything that is random in the trial."""
    work: Path
    """A scratch folder that belongs to this trial alone."""
    products: Mapping[str, Path] = field(default_factory=dict)
    """Folder of the finished product of each stage that `Trainable.stages` named, by the stage's
    name; its files were checked against their digests."""
    device: str = "cpu"
    """Device to train on, as torch names it, e.g. `cpu` or `cuda`."""
    threads: int = 1
    """Number of processor threads that this process may use."""
    gpu_share: float = 1.0
    """Share of one GPU's memory that this trial may use, above 0 and at most 1."""
    rank: int = 0
    """Rank of this process among the processes that train the trial together, from 0. Only the
    process of rank 0 saves, exports and draws."""
    processes: int = 1
    """Number of processes that train this trial together. If there are several, they are the
    members of torch.distributed's default group."""
    max_epochs: int = 1
    """Number of epochs of a complete trial."""
    progress: Progress = silent
    """Function that the trainable calls between steps. It may raise an exception when the trial
    must hand over its place: the trainable lets the exception pass. Processes that train together
    must all call it after the same steps."""


@dataclass(frozen=True)
class Contest:
    """Names the columns of `Evaluation.records` that decide between two models, frame by frame.

    Three columns have fixed names. `activity` (integers from 0) is an index into `activities`,
    `group` (integers from 0) is the group of the frame: the macro average is the mean of the
    groups' means. `motion` says which frames belong to one motion.
    """

    score: str
    """Name of the column with the error that is compared; a lower error is better."""
    unit: str
    """Unit of the score and of the rivals, e.g. mm."""
    sees: str
    """What the model was given, e.g. `images`. Models that were given different things are not
    compared."""
    rivals: Mapping[str, str]
    """Column of each rival, by the rival's name: the error of a trivial guess on the same frames.
    Rivals never use the truth; a model that beats none of them has learned nothing."""
    activities: Sequence[str]
    """Names of the activities, in the order of their indices in the column `activity`."""


@dataclass(frozen=True)
class Evaluation:
    """Holds the result of an exported model on one split of a store."""

    metrics: Mapping[str, float]
    """Value of each metric, by the metric's name."""
    baselines: Mapping[str, float]
    """Value of each trivial baseline on the same frames, in the unit of the main metric."""
    records: Mapping[str, NDArray[Any]]
    """One array for each column, by the column's name, with one entry for each frame."""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """Contents of PNG files, by the file's name."""
    tables: Mapping[str, str] = field(default_factory=dict)
    """Contents of text files (Markdown, CSV), by the file's name."""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """The ends of the 95 % interval of metrics and baselines, by their names."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further results for a reader, e.g. counts and averages of each activity (JSON values)."""
    notes: Sequence[str] = ()
    """Sentences that a reader of the numbers must know, e.g. that training and test data differ."""
    contest: Contest | None = None
    """How promotion compares two models; None if this model cannot be compared with another."""


@dataclass(frozen=True)
class Cost:
    """Holds an estimate of the time and disk that one trial takes, made from a measured step."""

    epoch_s: float
    """Seconds of one epoch with its validation, on the device and threads of the `TrialContext`."""
    stages_s: Mapping[str, float]
    """Seconds that it takes to build each stage of the trial, by the stage's name."""
    checkpoint_bytes: int
    """Bytes that `Trainable.save` writes."""
    model_bytes: int
    """Bytes that `Trainable.export` and `Trainable.draw` write together."""


class Predictor(Protocol):
    """Predicts 3D poses from images with an exported model.

    It may also have `input_notes`: sentences on what its pictures must be like beyond their shape.
    """

    image_size: int
    """Side of the square images that the model takes, S, in pixels."""
    joint_names: Sequence[str]
    """Names of the J joints, in the order of the poses that the model returns."""
    limbs: Sequence[tuple[int, int]]
    """Pairs of joint indices between which a drawing of a pose has a line."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Predict one pose for each image.

        Args:
            images: RGB pictures of one person each, (N, S, S, 3), brightness 0 to 255.

        Returns:
            Positions of the joints, (N, J, 3), in units of the pose's mean bone length, in camera
            axes: x right, y down, z away from the camera. The root joint is at the origin.
        """


def input_notes(predictor: Predictor) -> tuple[str, ...]:
    """Return the sentences of a predictor's `input_notes`; none where it has no such attribute."""
    return tuple(getattr(predictor, "input_notes", ()))


class Trainable(Protocol):
    """Defines what one kind of model must offer so that the platform can search over it.

    A class that names `Trainable` as its base inherits the methods that have a body here: it has
    no stages, no baselines and no contact sheet, its forecast trains one epoch, and it says nothing
    of trials that are extended.
    """

    config_model: ClassVar[type[BaseModel]]
    """Model of the configuration. It is frozen, and each of its fields has bounds and a
    description. A sweep searches or fixes any field by its dotted name."""
    metrics: ClassVar[Mapping[str, Metric]]
    """Every metric that `epoch` returns on a store with all that the metrics need, by name."""
    parallel: ClassVar[bool] = False
    """Whether several processes can train one trial together, see `TrialContext.processes`."""
    reusable: ClassVar[bool] = False
    """Whether one process may run several trials of this class, one after the other. It saves the
    seconds that a new process takes to import everything. A class may declare it that keeps nothing
    of a trial in class variables and modules; what torch, NumPy and the system keep for a process
    is put back by the platform. A subclass declares it anew, see `is_reusable`."""
    accelerator: ClassVar[Accelerator] = CUDA
    """Kind of device that trials with `resources.gpu` train on."""

    @classmethod
    def importers(cls) -> Mapping[str, Importer]:
        """Return the data formats that `posetune data import` offers, by name."""

    @classmethod
    def describe_store(cls, store: Path) -> StoreSummary:
        """Describe what is in a store.

        Raises:
            BadInputError: the folder is no store of this trainable.
        """

    @classmethod
    def draw_store(cls, store: Path, out: Path) -> None:
        """Write a contact sheet of a store as the PNG file `out`.

        Raises:
            BadInputError: the trainable draws no contact sheet.
        """
        raise BadInputError(f"{store}: {cls.__name__} draws no contact sheet")

    @classmethod
    def stages(cls, config: Any, store: Path) -> Sequence[Stage]:
        """Return the shared pre-computations that a trial with this configuration needs."""
        return ()

    @classmethod
    def baselines(cls, products: Mapping[str, Path], metric: str) -> Mapping[str, float]:
        """Return the trivial baselines of one metric on validation.

        Args:
            products: folders of finished stage products, by the stage's name.
            metric: name of the metric.

        Returns:
            Value of each baseline in the metric's unit, by the baseline's name. It is empty if the
            metric has no baselines or `products` lacks the stage that holds them.
        """
        return {}

    @classmethod
    def rates_decay(cls, config: Any) -> bool:
        """Return whether the learning rates decay to the last epochs with this configuration.

        Early epochs say less of the end then. A sweep whose file does not say when trials are
        compared begins to compare them later.
        """
        return False

    @classmethod
    def note_of_extension(cls, config: Any) -> str:
        """Return what a person should know who lets a trial train beyond its last epoch.

        For example that its learning rates decay over its epochs. It is empty where more epochs
        give what a trial gives that had as many from the start.
        """
        return ""

    @classmethod
    def forecast(cls, config: Any, context: TrialContext) -> Cost:
        """Measure a part of a trial and estimate the time and disk of the whole.

        The platform calls it before any stage is built: `context.products` is empty.

        Raises:
            BadInputError: an epoch does not report the metrics that the trainable declares.
        """
        trial, began = cls(), time.perf_counter()
        trial.start(config, context)
        reported = trial.epoch()
        seconds = time.perf_counter() - began
        lacking = cls.describe_store(context.store).unavailable
        try:
            read_metrics(reported, declared=[m for m in cls.metrics if m not in lacking])
        except MetricError as error:
            raise BadInputError(f"{cls.__module__}:{cls.__qualname__}: {error}") from error
        state, result = context.work / "state", context.work / "result"
        state.mkdir(parents=True)
        trial.save(state)
        result.mkdir(parents=True)
        trial.export(result)
        trial.draw(result)
        return Cost(
            epoch_s=seconds,
            stages_s={},
            checkpoint_bytes=_bytes_below(state),
            model_bytes=_bytes_below(result),
        )

    def start(self, config: Any, context: TrialContext) -> None:
        """Build everything that one trial needs before its first epoch.

        The platform may call it again on the same object, to begin another trial.

        Args:
            config: an instance of `config_model`.
            context: where the trial runs and with what.
        """

    def epoch(self) -> Mapping[str, float]:
        """Train one epoch, validate, and return every metric of `metrics` that the store allows.

        The values are real numbers: floats, NumPy's scalars, or arrays and tensors without
        dimensions. Further metrics may be among them. The names `trial`, `epoch` and `seconds`, and
        those that begin with `best/`, `time/`, `system/` or `baseline/`, are the platform's own.

        `context.progress` may raise an exception between two steps. The platform calls `save` then,
        and after a `load`, in this process or on another node, the epoch goes on from that step.

        Raises:
            TrialFailedError: the trial diverged or collapsed.
        """

    def save(self, folder: Path) -> None:
        """Write everything that an exact continuation needs into the empty `folder`.

        The platform calls it after an epoch, or after `context.progress` broke an epoch off.
        """

    def load(self, folder: Path) -> None:
        """Restore the state that `save` wrote, so that the trial continues exactly from there.

        The platform calls it after `start`.
        """

    def export(self, folder: Path) -> None:
        """Write into `folder` the weights for inference (safetensors) and how to load them.

        The folder is empty before; `load_model` and `evaluate` read it.
        """

    def draw(self, folder: Path) -> None:
        """Write figures of the trial's present state (PNG) into `folder`.

        The folder may already hold other files.
        """

    @classmethod
    def evaluate(
        cls, exported: Path, store: Path, split: str, progress: Progress = silent
    ) -> Evaluation:
        """Evaluate an exported model on one split of a store.

        Args:
            exported: folder that `export` wrote.
            store: folder of the prepared data.
            split: name of the split, e.g. `val`.
            progress: hears how many units of the work are finished.
        """

    @classmethod
    def load_model(cls, exported: Path) -> Predictor:
        """Load the model that `export` wrote into the folder `exported`."""

    @classmethod
    def export_graph(cls, exported: Path, out: Path) -> float:
        """Write an exported model as a program that runs without our code.

        It is an ONNX model where `out` ends in `.onnx`, and a `torch.export` program where it ends
        in `.pt2`.

        The program takes uint8 images (N, S, S, 3) for any N and returns poses as the `Predictor`
        does.

        Returns:
            The largest absolute difference between the poses of the written program and those of
            the `Predictor` on the same images, in the unit of the poses.

        Raises:
            BadInputError: the model cannot be written as such a program, or a package that this
                takes is not installed.
        """
        raise BadInputError(f"{exported}: {cls.__name__} cannot be exported as one program")


def is_reusable(trainable: type[Trainable]) -> bool:
    """Return whether a class itself declares `Trainable.reusable`.

    It is not inherited: a subclass may keep what the class above it does not.
    """
    return bool(vars(trainable).get("reusable", False))


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*"))
