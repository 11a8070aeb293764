"""Reads a sweep file into frozen models and checks all of it before anything is spent.

`load_sweep` is the way in: it makes a `SweepSpec` of the file, finds the trainable and checks every
searched and fixed field with the trainable's configuration model. Each error names file, line and
key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from posetune.api import BadInputError, Trainable
from posetune.spec.documents import Document, Key, describe_errors, read_document
from posetune.spec.parameters import Choice, FloatRange, Frozen, IntRange, Parameter, Scalar
from posetune.spec.registration import DEFAULT_TRAINABLE, load_trainable

__all__ = [
    "SweepSpec",
    "configure",
    "default_params",
    "load_sweep",
    "vary_one_by_one",
]


class Objective(Frozen):
    """Says which metric the sweep optimises, and in which direction."""

    metric: str = Field(
        description="Name of the metric to optimise, as the trainable reports it every epoch."
    )
    mode: Literal["min", "max"] = Field(
        description="Whether a lower (`min`) or a higher (`max`) value of the metric is better."
    )
    select: Literal["best", "last"] = Field(
        "best",
        description="Epoch by which a trial is ranked and promoted: the `best` of those that it "
        "reported, or the `last`. Sampler and pruner see the values of all epochs either way.",
    )

    @property
    def sign(self) -> int:
        """What a value is multiplied by so that lower is better: 1, or -1 for `max`."""
        return 1 if self.mode == "min" else -1

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """The mode as Optuna calls it."""
        return "minimize" if self.mode == "min" else "maximize"

    @property
    def better_word(self) -> Literal["lower", "higher"]:
        """What a better value is than another, as a word."""
        return "lower" if self.mode == "min" else "higher"

    def better(self, one: float, other: float) -> bool:
        """Whether one value is better than another."""
        return self.sign * one < self.sign * other

    def best(self, values: Iterable[float]) -> float:
        """Return the best of some values."""
        return min(values, key=lambda value: self.sign * value)


class Sampler(Frozen):
    """Says how the sampler draws the next trial's parameters."""

    name: Literal["tpe", "random", "one_by_one"] = Field(
        "tpe",
        description="Algorithm that proposes parameters: `tpe` learns from finished trials, "
        "`random` draws independently, `one_by_one` is for ablations: its first trial has the "
        "first value of every field, each further trial changes one field, and all trials have "
        "the same seed.",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**31,
        strict=True,
        description="Seed of the sampler; the seeds of the trials follow from it.",
    )
    start_from: tuple[str, ...] = Field(
        (),
        description="Names of other sweeps of the same study; the sampler learns from their "
        "finished trials before it proposes its first parameters.",
    )


class Pruner(Frozen):
    """Says when the pruner cuts a trial, and how many epochs a trial may last."""

    name: Literal["asha", "none"] = Field(
        "asha",
        description="Algorithm that cuts trials: `asha` cuts a trial that is not among the best "
        "of its rung, `none` lets every trial run to its end.",
    )
    max_epochs: int = Field(ge=1, strict=True, description="Number of epochs of a complete trial.")
    grace_epochs: int = Field(
        1,
        ge=1,
        strict=True,
        description="Number of epochs after which a trial is at its first rung and may be cut.",
    )
    reduction_factor: int = Field(
        3,
        ge=2,
        strict=True,
        description="Each rung lets the best 1 in this many trials go on, and the next rung is at "
        "this many times its epochs.",
    )
    audit_share: float = Field(
        0.0,
        ge=0,
        le=1,
        strict=True,
        description="Share of the trials that run on although ASHA would cut them; they show "
        "what cutting costs.",
    )

    @model_validator(mode="after")
    def _grace_comes_first(self) -> Pruner:
        if self.grace_epochs > self.max_epochs:
            raise ValueError(
                f"grace_epochs ({self.grace_epochs}) is more than max_epochs ({self.max_epochs})"
            )
        return self


# Ray's own syntax for node labels, checked here so that an error names file and line.
_LABEL = r"[a-zA-Z0-9](?:[\w.-]{0,61}[a-zA-Z0-9])?"
LabelName = Annotated[str, Field(pattern=rf"^(?:[\w.-]+/)?{_LABEL}$")]
LabelCondition = Annotated[str, Field(pattern=rf"^!?(?:{_LABEL}|in\({_LABEL}(?:, ?{_LABEL})*\))$")]


class Resources(Frozen):
    """Says what one trial takes of the cluster, and how many trials may run at a time."""

    cpu: float = Field(
        1,
        gt=0,
        strict=True,
        description="Number of processor cores that one trial takes; it uses as many threads.",
    )
    gpu: float = Field(
        0,
        ge=0,
        strict=True,
        description="Number of GPUs that one trial takes; below 1, several trials share a GPU.",
    )
    share: bool = Field(
        False,
        strict=True,
        description="Whether as many trials share each GPU as its memory holds, by the memory "
        "that a probe measures before the sweep; needs `gpu: 1`.",
    )
    processes: int = Field(
        1,
        ge=1,
        strict=True,
        description="Number of processes that train one trial together. Each one takes an equal "
        "share of every batch. Default: one per GPU.",
    )
    labels: dict[LabelName, LabelCondition] = Field(
        default_factory=dict,
        description="Conditions on the labels of the nodes that may be used, by the label's name: "
        "value, !value, in(a, b) or !in(a, b).",
    )
    concurrent: int | None = Field(
        None,
        ge=1,
        strict=True,
        description="Highest number of trials that run at the same time, for sweeps that share a "
        "cluster. Default: as many as the cluster has room for.",
    )

    @property
    def gpus_or_one(self) -> float:
        """GPU-hours that one hour of a trial counts; without a GPU its own hours are counted."""
        return self.gpu or 1.0

    @property
    def gpu_share(self) -> float:
        """Share of one GPU's memory that one trial may use, above 0 and at most 1."""
        return min(1.0, self.gpus_or_one)

    @model_validator(mode="before")
    @classmethod
    def _one_process_for_each_gpu(cls, given: Any) -> Any:
        gpu = given.get("gpu", 0) if isinstance(given, dict) else None
        if not isinstance(gpu, int | float):
            return given
        if gpu > 1 and gpu != int(gpu):
            raise ValueError(f"gpu must be whole above 1, got {gpu:g}")
        each = max(1, int(gpu))
        processes = given.get("processes", each)
        if given.get("share") and not 0 < gpu <= 1:
            raise ValueError(f"share needs gpu: 1, of which trials take parts, got {gpu:g}")
        if gpu and processes != each:
            raise ValueError(f"processes must be one for each of {each} GPUs, got {processes!r}")
        return {**given, "processes": processes}


class Budget(Frozen):
    """Says when the sweep ends: at the limit that is reached first."""

    trials: int = Field(ge=1, strict=True, description="Number of trials of the sweep.")
    gpu_hours: float | None = Field(
        None,
        gt=0,
        strict=True,
        description="Limit of GPU-hours: the hours for which trials hold their place, repeated "
        "epochs included, times `resources.gpu` (times 1 if that is 0). Default: no limit.",
    )
    wall_hours: float | None = Field(
        None,
        gt=0,
        strict=True,
        description="Limit of hours for which a driver is at work on the sweep. Default: no limit.",
    )


class Keep(Frozen):
    """Says which checkpoints stay in storage beyond those that the sweep itself needs."""

    best: int = Field(
        3,
        ge=0,
        strict=True,
        description="Number of best trials of which the best and the last checkpoint are kept "
        "though they were cut or failed. Trials that are open or complete keep theirs anyway.",
    )


class SweepSpec(Frozen):
    """Holds everything that a sweep file says."""

    trainable: str = Field(
        DEFAULT_TRAINABLE,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="Class of the model to train, as `package.module:Class`; it must be registered "
        "if posetune does not ship it.",
    )
    store: str | None = Field(
        None,
        description="Prepared data: a folder or an s3:// address. The option --store overrides it.",
    )
    objective: Objective = Field(description="Metric that the sweep optimises.")
    search: dict[str, Parameter] = Field(
        min_length=1,
        description="Fields of the trainable's configuration that the sweep searches, by dotted "
        "name: {float: [low, high]}, {int: [low, high]} or {choice: [...]} for each.",
    )
    fixed: dict[str, Any] = Field(
        default_factory=dict,
        description="Fields of the trainable's configuration that have the same value in every "
        "trial, by dotted name. A field that is in neither section keeps its default.",
    )
    sampler: Sampler = Field(Sampler(), description="How parameters of new trials are proposed.")
    pruner: Pruner = Field(description="When trials are cut, and how many epochs one may last.")
    resources: Resources = Field(Resources(), description="What each trial takes of the cluster.")
    budget: Budget = Field(description="Limits at which the sweep ends.")
    keep: Keep = Field(Keep(), description="Which checkpoints stay in storage.")

    def with_share(self, gpu: float) -> SweepSpec:
        """Return a copy of the sweep in which each trial takes `gpu` of one GPU, 0 < gpu <= 1."""
        resources = self.resources.model_copy(update={"gpu": gpu})
        return self.model_copy(update={"resources": resources})

    def selecting(self, select: Literal["best", "last"]) -> SweepSpec:
        """Return a copy of the sweep in which this epoch of a trial counts."""
        objective = self.objective.model_copy(update={"select": select})
        return self.model_copy(update={"objective": objective})

    def canonical(self) -> dict[str, Any]:
        """Return the sweep as JSON values, with all defaults, so that equal sweeps give equal JSON.

        A parameter has the keys of the file (`float`, `int`, `choice`).
        """
        return self.model_dump(mode="json", by_alias=True)


def load_sweep(path: Path) -> tuple[SweepSpec, type[Trainable], Document]:
    """Read a sweep file and check all that it says.

    Returns:
        The sweep, with its fixed fields by dotted names; the trainable's class; and the file with
        the line of each key, for further messages.

    Raises:
        BadInputError: the file cannot be read, or something in it is wrong. The message names file,
            line and key.
    """
    document = read_document(path)
    try:
        spec = SweepSpec.model_validate(document.content)
    except ValidationError as error:
        raise BadInputError(describe_errors(error, document)) from error
    try:
        trainable = load_trainable(spec.trainable)
    except BadInputError as error:
        raise BadInputError(f"{document.at(('trainable',))}: {error}") from error
    spec = spec.model_copy(update={"fixed": _flatten(spec.fixed)})
    _check_against_trainable(spec, trainable, document)
    return spec, trainable, document


def configure(
    model: type[BaseModel], fixed: Mapping[str, Any], params: Mapping[str, Any]
) -> BaseModel:
    """Build a trainable's configuration from values by dotted names.

    Args:
        model: the trainable's `config_model`.
        fixed: values of fixed fields, by dotted name.
        params: values of searched fields, by dotted name; they win over `fixed`.

    Raises:
        ValidationError: the model has no such field, or refuses the value.
        TypeError: a name goes through a field that has a value of its own.
    """
    nested: dict[str, Any] = {}
    for name, value in {**fixed, **params}.items():
        *parents, leaf = name.split(".")
        level = nested
        for parent in parents:
            level = level.setdefault(parent, {})
            if not isinstance(level, dict):
                raise TypeError(f"{name}: {parent} has a value of its own")
        level[leaf] = value
    return model.model_validate(nested)


def default_params(spec: SweepSpec, model: type[BaseModel]) -> dict[str, Scalar]:
    """Return the searched parameters of trial 0.

    They are the trainable's defaults, or the values of the search space that are nearest to them.
    In an ablation (`one_by_one`) they are the first value of each field, because there the file
    itself says what the other values are compared with.
    """
    if spec.sampler.name == "one_by_one":
        return {name: parameter.corners[0] for name, parameter in spec.search.items()}
    config = configure(model, spec.fixed, {}).model_dump()
    return {name: _nearest(p, _lookup(config, name)) for name, p in spec.search.items()}


def vary_one_by_one(spec: SweepSpec, defaults: Mapping[str, Scalar]) -> list[dict[str, Scalar]]:
    """Return the parameters of an ablation's trials: `defaults`, then one field changed in each.

    Raises:
        ValueError: a searched field is a range of real numbers, which has too many values.
    """
    trials = [dict(defaults)]
    for name, parameter in spec.search.items():
        values: Sequence[Scalar]
        if isinstance(parameter, Choice):
            values = parameter.values
        elif isinstance(parameter, IntRange):
            values = range(parameter.bounds[0], parameter.bounds[1] + 1, parameter.step)
        else:
            raise ValueError(f"one_by_one cannot try all of {name}; give choice: [...]")
        trials += [{**defaults, name: value} for value in values if value != defaults[name]]
    return trials


def _nearest(parameter: FloatRange | IntRange | Choice, default: Any) -> Scalar:
    if isinstance(parameter, Choice):
        equal = [v for v in parameter.values if v == default and type(v) is type(default)]
        numbers = [v for v in parameter.values if isinstance(v, int | float)]
        if equal or not numbers or not isinstance(default, int | float):
            return (equal or list(parameter.values))[0]
        return min(numbers, key=lambda v: abs(v - default))
    low, high = parameter.bounds
    clipped = min(max(default, low), high) if isinstance(default, int | float) else low
    if parameter.step is not None:
        steps = min(round((clipped - low) / parameter.step), int((high - low) / parameter.step))
        clipped = low + steps * parameter.step
    return int(clipped) if isinstance(parameter, IntRange) else float(clipped)


def _lookup(config: Mapping[str, Any], name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = value[part]
    return value


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _check_against_trainable(
    spec: SweepSpec, trainable: type[Trainable], document: Document
) -> None:
    """Refuse a sweep that the trainable cannot run; the message names file, line and key."""
    model = trainable.config_model
    for name in spec.search:
        if name in spec.fixed:
            raise BadInputError(
                f"{document.at(('search', name))}: is searched and also fixed; keep one of them"
            )
    if spec.resources.processes > 1 and not trainable.parallel:
        raise BadInputError(
            f"{document.at(('resources',))}: {spec.trainable} trains in one process, got "
            f"{spec.resources.processes}; give gpu: 1 or less"
        )
    _check_fields(model, spec.fixed, document, section="fixed")
    for name, parameter in spec.search.items():
        for corner in parameter.corners:
            _check_fields(model, {**spec.fixed, name: corner}, document, section="search")
    if spec.sampler.name == "one_by_one":
        _check_one_by_one(spec, model, document)
    metric = trainable.metrics.get(spec.objective.metric)
    if metric is None:
        offered = ", ".join(name for name in trainable.metrics if name.startswith("val/"))
        raise BadInputError(
            f"{document.at(('objective', 'metric'))}: {spec.trainable} does not report "
            f"{spec.objective.metric!r}; it reports {offered or ', '.join(trainable.metrics)}"
        )
    if metric.mode != spec.objective.mode:
        raise BadInputError(
            f"{document.at(('objective', 'mode'))}: {spec.objective.metric} is better when "
            f"{'lower' if metric.mode == 'min' else 'higher'}: write mode: {metric.mode}"
        )


def _check_one_by_one(spec: SweepSpec, model: type[BaseModel], document: Document) -> None:
    try:
        count = len(vary_one_by_one(spec, default_params(spec, model)))
    except ValueError as error:
        raise BadInputError(f"{document.at(('search',))}: {error}") from error
    if spec.budget.trials > count:
        raise BadInputError(
            f"{document.at(('budget', 'trials'))}: one_by_one has {count} trials in this space, "
            f"got {spec.budget.trials}"
        )


def _check_fields(
    model: type[BaseModel], values: Mapping[str, Any], document: Document, *, section: str
) -> None:
    """Refuse values that a trainable's configuration does not take.

    Args:
        model: the trainable's `config_model`.
        values: value of each field, by dotted name.
        document: the sweep file, for the place of the key at fault.
        section: the section of the file that the values come from, `fixed` or `search`.
    """
    try:
        configure(model, values, {})
    except TypeError as error:
        raise BadInputError(f"{document.at((section,))}: {error}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = f"{model.__name__} has no such field"
        # A check that involves several fields names none of them: the message then says the
        # section alone, and pydantic's own text has the values.
        name = next((n for n in values if n == field or n.startswith(f"{field}.")), field)
        key = _key(document, section, name) if name else (section,)
        shown = f", got {values.get(name, fault.get('input'))!r}" if name else ""
        raise BadInputError(f"{document.at(key)}: {message}{shown}") from error


def _key(document: Document, section: str, name: str) -> Key:
    """Return the path of a field in the file, which holds it by dotted name or nested."""
    dotted = (section, name)
    return dotted if dotted in document.lines else (section, *name.split("."))
