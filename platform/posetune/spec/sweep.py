"""The sweep file: frozen models in which everything is checked before anything is spent.

`load_sweep` is the way in: file -> `Sweep`, with the trainable found, every searched and fixed
field held against the trainable's configuration model, and each error naming file, line and key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """What is optimised."""

    metric: str
    mode: Literal["min", "max"]


class Sampler(Frozen):
    """How the next trial's parameters are drawn."""

    name: Literal["tpe", "random", "one_by_one"] = Field(
        "tpe",
        description="one_by_one, for ablations: the first value of every field, then its others, "
        "one field changed at a time; all trials have the same seed.",
    )
    seed: int = Field(0, ge=0, lt=2**31, strict=True)
    start_from: tuple[str, ...] = Field(
        (), description="Sweeps of the same study whose finished trials the sampler knows."
    )


class Pruner(Frozen):
    """When a trial is cut, and how long one may last."""

    name: Literal["asha", "none"] = "asha"
    max_epochs: int = Field(ge=1, strict=True, description="Epochs of a complete trial.")
    grace_epochs: int = Field(1, ge=1, strict=True, description="First rung, in epochs.")
    reduction_factor: int = Field(
        3, ge=2, strict=True, description="Each rung keeps the best 1 in this many."
    )
    audit_share: float = Field(
        0.0,
        ge=0,
        le=1,
        strict=True,
        description="Share of the trials that run on where ASHA would cut them, to see what "
        "cutting costs.",
    )

    @model_validator(mode="after")
    def _grace_comes_first(self) -> Pruner:
        if self.grace_epochs > self.max_epochs:
            raise ValueError(
                f"grace_epochs ({self.grace_epochs}) is more than max_epochs ({self.max_epochs})"
            )
        return self


_LABEL = r"[a-zA-Z0-9](?:[\w.-]{0,61}[a-zA-Z0-9])?"
LabelName = Annotated[str, Field(pattern=rf"^(?:[\w.-]+/)?{_LABEL}$")]
LabelCondition = Annotated[str, Field(pattern=rf"^!?(?:{_LABEL}|in\({_LABEL}(?:, ?{_LABEL})*\))$")]


class Resources(Frozen):
    """What one trial takes of the cluster, and how many trials there are at a time."""

    cpu: float = Field(1, gt=0, strict=True, description="Cores; also the trial's threads.")
    gpu: float = Field(0, ge=0, strict=True, description="GPUs; a fraction shares one.")
    share: bool = Field(
        False,
        strict=True,
        description="Let trials share each GPU by the memory that a probe measures; with gpu: 1.",
    )
    processes: int = Field(
        1,
        ge=1,
        strict=True,
        description="That train one trial together, each with a share of every batch; one for "
        "each GPU unless given.",
    )
    labels: dict[LabelName, LabelCondition] = Field(
        default_factory=dict,
        description="Of the nodes that may be used: value, !value, in(a, b) or !in(a, b).",
    )
    concurrent: int | None = Field(
        None,
        ge=1,
        strict=True,
        description="Trials at a time at most, where sweeps share a cluster; else as many as fit.",
    )

    @property
    def gpu_share(self) -> float:
        """Part of one GPU's memory that is a trial's."""
        return min(1.0, self.gpu or 1.0)

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
    """When the sweep ends: whichever comes first."""

    trials: int = Field(ge=1, strict=True)
    gpu_hours: float | None = Field(
        None,
        gt=0,
        strict=True,
        description="Time for which attempts hold their GPUs, repeated epochs included, times "
        "`resources.gpu`; times one where that is 0.",
    )
    wall_hours: float | None = Field(
        None, gt=0, strict=True, description="Time with a driver at work."
    )


class SweepSpec(Frozen):
    """A sweep file."""

    trainable: str = Field(DEFAULT_TRAINABLE, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    store: str | None = Field(None, description="Prepared data; --store overrides.")
    objective: Objective
    search: dict[str, Parameter] = Field(min_length=1)
    fixed: dict[str, Any] = Field(default_factory=dict)
    sampler: Sampler = Sampler()
    pruner: Pruner
    resources: Resources = Resources()
    budget: Budget

    def with_share(self, gpu: float) -> SweepSpec:
        """Return the sweep with the part of a GPU that each trial takes."""
        resources = self.resources.model_copy(update={"gpu": gpu})
        return self.model_copy(update={"resources": resources})

    def canonical(self) -> dict[str, Any]:
        """Return the file as JSON values in which equal sweeps are equal."""
        return self.model_dump(mode="json", by_alias=True)


def load_sweep(path: Path) -> tuple[SweepSpec, type[Trainable], Document]:
    """Read and check a sweep file.

    Raises:
        BadInputError: naming file, line and key.
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
    """Build a trainable's configuration from dotted names.

    Raises:
        ValidationError: a name or value is not of the model.
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
    """Return the searched parameters of trial 0: the defaults, or the nearest in the space.

    For an ablation the first value of each field: there the file says what it compares with.
    """
    if spec.sampler.name == "one_by_one":
        return {name: parameter.corners[0] for name, parameter in spec.search.items()}
    config = configure(model, spec.fixed, {}).model_dump()
    return {name: _nearest(p, _lookup(config, name)) for name, p in spec.search.items()}


def vary_one_by_one(spec: SweepSpec, defaults: Mapping[str, Scalar]) -> list[dict[str, Scalar]]:
    """Return an ablation's trials: `defaults`, then one field changed in each.

    Raises:
        ValueError: a searched field is a range of real numbers, which cannot all be tried.
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
    """Hold dotted names and values against a trainable's fields; blame the key at fault."""
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
        # A fault between fields names none: the section is to blame, and the message has values.
        name = next((n for n in values if n == field or n.startswith(f"{field}.")), field)
        key = _key(document, section, name) if name else (section,)
        shown = f", got {values.get(name, fault.get('input'))!r}" if name else ""
        raise BadInputError(f"{document.at(key)}: {message}{shown}") from error


def _key(document: Document, section: str, name: str) -> Key:
    """Return where a dotted name stands in the file: as it is, or as nested mappings."""
    dotted = (section, name)
    return dotted if dotted in document.lines else (section, *name.split("."))
