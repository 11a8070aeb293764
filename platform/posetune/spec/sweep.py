"""Says what a sweep file may hold: frozen models, each of which checks what it can know alone.

One idea, a model for each section, so it is long. `loading.load_sweep` makes a `SweepSpec` of a
file, and checks it against the trainable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from posetune.spec.notify import Destination, check_distinct
from posetune.spec.parameters import Choice, Frozen, Parameter, Scalar
from posetune.spec.registration import DEFAULT_TRAINABLE

__all__ = [
    "MACHINE_FIELDS",
    "MACHINE_SECTIONS",
    "SweepSpec",
]

MACHINE_FIELDS = ("concurrent", "share", "mps")
"""The fields of `resources` that are no part of a sweep's identity: they belong to the machine."""

MACHINE_SECTIONS = ("notify", "cluster")
"""Sections of a sweep file that are no part of a sweep's identity, either."""


STARTUP = {"tpe": 10, "gp": 4}
"""Most start values of a sweep that says nothing about them, by its sampler."""


ClassName = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
"""Names a class as `package.module:Class`."""


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
        """Return the best of some values, none of which is missing."""
        return min(values, key=lambda value: self.sign * value)


class Sampler(Frozen):
    """Says how the sampler draws the next trial's parameters."""

    name: Literal["tpe", "gp", "random", "one_by_one"] | ClassName = Field(
        "tpe",
        description="Algorithm that proposes parameters: `tpe` learns from finished trials, `gp` "
        "models the learning curves of all trials by a Gaussian process and predicts their ends, "
        "`random` draws independently, `one_by_one` is for ablations: its first trial has the "
        "first value of every field, each further trial changes one field, and all trials have "
        "the same seed. `package.module:Class` is a registered class of yours.",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**31,
        strict=True,
        description="Seed of the sampler; the seeds of the trials follow from it.",
    )
    startup: int | None = Field(
        None,
        ge=1,
        strict=True,
        description="Number of start values. Until so many trials have ended (`tpe`) or begun "
        "(`gp`), parameters are proposed that cover the search space evenly, with the defaults as "
        "the first. Default: 10 for `tpe` and 4 for `gp`, or a third of the sweep's trials if "
        "that is less.",
    )
    repeats: int = Field(
        1,
        ge=1,
        le=100,
        strict=True,
        description="Number of trials that train the same parameters, each with a seed of its own. "
        "They are ranked by the mean of these trials, which is shown with its standard error.",
    )
    start_from: tuple[str, ...] = Field(
        (),
        description="Names of other sweeps of the same study; the sampler learns from those of "
        "their finished trials that lie in this search space before it proposes its first "
        "parameters. On other data only `gp` learns from them, at a discount.",
    )


class Prior(Frozen):
    """Says where one searched field is believed to be best."""

    value: float = Field(strict=True, description="Value that is believed to be about the best.")
    width: float = Field(
        0.25,
        gt=0,
        le=1,
        strict=True,
        description="Standard deviation of that belief, as a share of the field's range on the "
        "range's own scale.",
    )

    def value_in(self, parameter: Parameter) -> Scalar:
        """Return the believed value, or the nearest number that the parameter may have."""
        if isinstance(parameter, Choice):
            return min(parameter.values, key=lambda value: abs(float(value) - self.value))
        low, high = (float(corner) for corner in parameter.corners)
        bounded = min(max(self.value, low), high)
        if parameter.step is None:
            return bounded
        return parameter.nearest(bounded)


def _as_prior(given: Any) -> Any:
    """Return a number alone as the prior with that value."""
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    return {"value": float(given)} if is_number else given


class Pruner(Frozen):
    """Says when the pruner cuts a trial, and how many epochs a trial may last."""

    name: Literal["asha", "thaw", "none"] | ClassName = Field(
        "asha",
        description="Algorithm that cuts trials: `asha` cuts a trial that is not among the best "
        "of its rung, `thaw` pauses a trial that promises less than another and lets it go on "
        "later, `none` lets every trial run to its end. `package.module:Class` is a registered "
        "class of yours.",
    )
    max_epochs: int = Field(ge=1, strict=True, description="Number of epochs of a complete trial.")
    grace_epochs: int = Field(
        1,
        ge=1,
        strict=True,
        description="Number of epochs after which a trial is at its first rung and may be cut. "
        "Default: 1, or a fifth of `max_epochs` where the trainable's learning rates decay; a "
        "ninth for `thaw`.",
    )
    reduction_factor: int = Field(
        3,
        ge=2,
        strict=True,
        description="Each rung lets the best 1 in this many trials go on, and the next rung is at "
        "this many times its epochs. Default: 3, or 2 for `thaw` and where the "
        "trainable's learning rates decay.",
    )
    audit_share: float = Field(
        0.0,
        ge=0,
        le=1,
        strict=True,
        description="Share of the trials that run on although ASHA would cut them; they show "
        "what cutting costs.",
    )

    @model_validator(mode="before")
    @classmethod
    def _thaw_has_rungs_of_its_own(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("name") != "thaw":
            return given
        if given.get("audit_share"):
            raise ValueError("thaw cuts nothing on the way: audit_share is for asha")
        epochs = given.get("max_epochs")
        early = max(1, round(epochs / 9)) if isinstance(epochs, int) else 1
        return {"grace_epochs": early, "reduction_factor": 2, **given}

    @model_validator(mode="after")
    def _grace_comes_first(self) -> Pruner:
        if self.grace_epochs > self.max_epochs:
            raise ValueError(
                f"grace_epochs ({self.grace_epochs}) is more than max_epochs ({self.max_epochs})"
            )
        return self

    def fitting(self, *, rates_decay: bool) -> Pruner:
        """Return the pruner with the rungs that fit the training, where the file gives none.

        Where rates decay to the end, the curves cross, and rungs after the first epochs cut the
        best trials (docs/results/search.md).
        """
        if self.name != "asha" or not rates_decay:
            return self
        fitting = {"grace_epochs": math.ceil(self.max_epochs / 5), "reduction_factor": 2}
        more = {name: value for name, value in fitting.items() if name not in self.model_fields_set}
        if more.get("grace_epochs", 0) >= self.max_epochs:
            return self
        return Pruner.model_construct(self.model_fields_set, **{**dict(self), **more})


RAYS_GRAIN = 0.0001
"""Smallest part of a core or of a GPU that Ray counts."""

# Ray's own syntax for node labels, checked here so that an error names file and line.
_LABEL = r"[a-zA-Z0-9](?:[\w.-]{0,61}[a-zA-Z0-9])?"
LabelName = Annotated[str, Field(pattern=rf"^(?:[\w.-]+/)?{_LABEL}$")]
LabelCondition = Annotated[str, Field(pattern=rf"^!?(?:{_LABEL}|in\({_LABEL}(?:, ?{_LABEL})*\))$")]


class Resources(Frozen):
    """Says what one trial takes of the cluster, and how many trials may run at a time."""

    cpu: float = Field(
        1,
        ge=RAYS_GRAIN,
        strict=True,
        description="Number of processor cores that one trial takes; it uses as many threads.",
    )
    stage_cpu: float | None = Field(
        None,
        gt=0,
        strict=True,
        description="Number of processor cores on which a trial builds a shared stage; it uses as "
        "many threads. Trials that wait for the stage leave their cores idle. Default: `cpu`.",
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
    mps: bool = Field(
        False,
        strict=True,
        description="Whether trials that share a GPU work on it at the same time, by NVIDIA's MPS, "
        "which is started on a node where none runs. An error of the GPU in one of them then "
        "ends the others too. Needs `share` or a `gpu` below 1.",
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
    def stage_threads(self) -> int:
        """Number of processor threads on which a trial builds a shared stage."""
        return max(1, int(self.stage_cpu or self.cpu))

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
        if 0 < gpu < RAYS_GRAIN:
            raise ValueError(f"gpu must be 0 or at least {RAYS_GRAIN:g}, got {gpu:g}")
        if gpu > 1 and gpu != int(gpu):
            raise ValueError(f"gpu must be whole above 1, got {gpu:g}")
        each = max(1, int(gpu))
        processes = given.get("processes", each)
        if given.get("share") and not 0 < gpu <= 1:
            raise ValueError(f"share needs gpu: 1, of which trials take parts, got {gpu:g}")
        if given.get("mps") and not (given.get("share") or 0 < gpu < 1):
            raise ValueError("mps needs trials that share a GPU; set share: true, or a gpu below 1")
        if gpu and processes != each:
            raise ValueError(f"processes must be one for each of {each} GPUs, got {processes!r}")
        return {**given, "processes": processes}


class ClusterRules(Frozen):
    """Says how a sweep shares its cluster with other sweeps of the same study."""

    priority: int = Field(
        0,
        ge=-1000,
        le=1000,
        strict=True,
        description="Sweeps of a higher priority are served first, and the others have what these "
        "leave. No unit; it may change at any time.",
    )
    share: float = Field(
        1.0,
        gt=0,
        le=1000,
        strict=True,
        description="Share of the cluster, compared with the shares of other sweeps of the same "
        "priority that have trials waiting: with 3 and 1, three slots to one. It may change at "
        "any time.",
    )


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
    cost: float | None = Field(
        None,
        gt=0,
        strict=True,
        description="Limit of what the GPU-hours cost, in the currency of `cost_per_gpu_hour`; it "
        "holds beside `gpu_hours`. Default: no limit.",
    )
    cost_per_gpu_hour: float | None = Field(
        None,
        gt=0,
        strict=True,
        description="Cost of one GPU-hour, by which `cost` is counted. Default: "
        "`cost_per_gpu_hour` in the home's posetune.yaml.",
    )
    wall_hours: float | None = Field(
        None,
        gt=0,
        strict=True,
        description="Limit of hours for which a driver is at work on the sweep. Default: no limit.",
    )
    stop_after_failures: int | None = Field(
        3,
        ge=1,
        strict=True,
        description="The sweep ends when its first so many trials to fail have the same error at "
        "the same place and no trial has come past that epoch; null: it never ends so.",
    )
    stuck_after: float | None = Field(
        None,
        gt=0,
        strict=True,
        description="Seconds without a report and without a call of the trainable's `progress`, "
        "after which the worker of an epoch is killed. Default: 20 times the median epoch, at "
        "least 10 minutes, once the length of an epoch is known.",
    )
    target: float | None = Field(
        None,
        strict=True,
        allow_inf_nan=False,
        description="Value of the objective at which the sweep ends, as soon as an epoch of any "
        "trial reaches it; in the objective's unit. Default: the sweep does not end by a value.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        strict=True,
        description="The sweep ends when the expected gain of what is left of it, with its "
        "interval of 80 %, has been below the noise between seeds at the ends of this many trials "
        "in a row. The noise is known from trials with the same parameters (`sampler.repeats`, "
        "finalists) or, more roughly, from audited trials. Default: the sweep does not end so.",
    )

    @property
    def limit_gpu_hours(self) -> float | None:
        """The smaller of the limits of GPU-hours: the given one, and what `cost` pays for."""
        limits = [] if self.gpu_hours is None else [self.gpu_hours]
        if self.cost is not None and self.cost_per_gpu_hour is not None:
            limits.append(self.cost / self.cost_per_gpu_hour)
        return min(limits, default=None)

    @property
    def is_limited_by_cost(self) -> bool:
        """Whether `cost` is reached before `gpu_hours` is."""
        return self.limit_gpu_hours is not None and self.limit_gpu_hours != self.gpu_hours


class Keep(Frozen):
    """Says which checkpoints stay in storage beyond those that the sweep itself needs."""

    best: int = Field(
        3,
        ge=0,
        strict=True,
        description="Number of best trials of which the best and the last checkpoint are kept "
        "though they were cut or failed. Trials that are open, complete or stopped keep theirs "
        "anyway.",
    )


def _name_in(section: Any) -> Any:
    """Return the name that a section of the file gives; None where it gives none."""
    if isinstance(section, dict):
        return section.get("name")
    return getattr(section, "name", None)


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
    prior: dict[str, Annotated[Prior, BeforeValidator(_as_prior)]] = Field(
        default_factory=dict,
        description="Values of searched fields that are believed to be about the best, by dotted "
        "name: a number, or {value: 1.0, width: 0.1}. `tpe` and `gp` draw every second start value "
        "around them; `gp` also prefers points near them, less with every trial.",
    )
    sampler: Sampler = Field(Sampler(), description="How parameters of new trials are proposed.")
    pruner: Pruner = Field(description="When trials are cut, and how many epochs one may last.")
    resources: Resources = Field(Resources(), description="What each trial takes of the cluster.")
    cluster: ClusterRules = Field(
        ClusterRules(),
        description="How the sweep shares its cluster with other sweeps of the same study.",
    )
    budget: Budget = Field(description="Limits at which the sweep ends.")
    keep: Keep = Field(Keep(), description="Which checkpoints stay in storage.")
    notify: tuple[Destination, ...] = Field(
        (),
        description="Who is told of what happens to the sweep: a webhook, slack, discord or email "
        "for each entry, with its events. It may change at any time.",
    )

    @model_validator(mode="after")
    def _cost_is_of_gpus(self) -> SweepSpec:
        if self.budget.cost is not None and not self.resources.gpu:
            raise ValueError(
                "budget.cost: the cost is that of GPU-hours, and a trial takes no GPU "
                "(resources.gpu: 0); give gpu_hours or wall_hours instead"
            )
        return self

    @model_validator(mode="after")
    def _destinations_are_distinct(self) -> SweepSpec:
        check_distinct(self.notify)
        return self

    @property
    def machine(self) -> dict[str, Any]:
        """What the file says of the machine, not of the search: it may change at any time."""
        return {name: getattr(self.resources, name) for name in MACHINE_FIELDS}

    def with_machine(self, machine: Mapping[str, Any]) -> SweepSpec:
        """Return a copy of the sweep in which these fields of `resources` have other values."""
        resources = self.resources.model_copy(update=dict(machine))
        return self.model_copy(update={"resources": resources})

    @model_validator(mode="before")
    @classmethod
    def _thaw_proposes_by_its_model(cls, given: Any) -> Any:
        if not isinstance(given, dict) or _name_in(given.get("pruner")) != "thaw":
            return given
        sampler = given.get("sampler", {})
        if _name_in(sampler) in ("tpe", "random", "one_by_one"):
            raise ValueError(
                "pruner: thaw compares trials with new points by its own model: give "
                "sampler: {name: gp}, or no name"
            )
        if isinstance(sampler, dict):
            return {**given, "sampler": {**sampler, "name": "gp"}}
        return given

    @model_validator(mode="after")
    def _repeats_are_ranked_by_their_best(self) -> SweepSpec:
        if self.sampler.repeats > 1 and self.objective.select == "last":
            raise ValueError("sampler.repeats ranks trials by their best epoch: give select: best")
        if self.sampler.repeats > 1 and self.sampler.name == "one_by_one":
            raise ValueError("one_by_one has the same seed in all trials: give no repeats")
        return self

    @model_validator(mode="after")
    def _an_ablation_is_not_ended_by_its_gain(self) -> SweepSpec:
        if self.budget.patience is not None and self.sampler.name == "one_by_one":
            raise ValueError("one_by_one compares all its trials: give no budget.patience")
        return self

    @model_validator(mode="after")
    def _priors_are_of_searched_numbers(self) -> SweepSpec:
        for name, prior in self.prior.items():
            parameter = self.search.get(name)
            if parameter is None:
                raise ValueError(f"prior: {name} is not searched")
            if isinstance(parameter, Choice) and not parameter.is_ordered:
                raise ValueError(f"prior: {name} is a choice without order")
            corners = [float(corner) for corner in parameter.corners]
            if not min(corners) <= prior.value <= max(corners):
                raise ValueError(
                    f"prior: {name} is {prior.value:g}, outside [{min(corners):g}, "
                    f"{max(corners):g}] of its search"
                )
        return self

    @property
    def startup(self) -> int:
        """How many start values there are."""
        chosen = self.sampler.startup
        most = STARTUP.get(self.sampler.name, 0)
        return chosen or max(1, min(most, self.budget.trials // 3))

    def priced(self, cost_per_gpu_hour: float | None) -> SweepSpec:
        """Return the sweep with a cost of a GPU-hour, unless it names its own."""
        if self.budget.cost_per_gpu_hour is not None:
            return self
        budget = self.budget.model_copy(update={"cost_per_gpu_hour": cost_per_gpu_hour})
        return self.model_copy(update={"budget": budget})

    def with_trials(self, trials: int) -> SweepSpec:
        """Return a copy of the sweep with another number of trials."""
        budget = self.budget.model_copy(update={"trials": trials})
        return self.model_copy(update={"budget": budget})

    def with_share(self, gpu: float) -> SweepSpec:
        """Return a copy of the sweep in which each trial takes `gpu` of one GPU, 0 < gpu <= 1."""
        return self.with_machine({"gpu": gpu})

    def up_to(self, epochs: int) -> SweepSpec:
        """Return a copy of the sweep in which a complete trial has this many epochs."""
        pruner = self.pruner.model_copy(update={"max_epochs": epochs})
        return self.model_copy(update={"pruner": pruner})

    def selecting(self, select: Literal["best", "last"]) -> SweepSpec:
        """Return a copy of the sweep in which this epoch of a trial counts."""
        objective = self.objective.model_copy(update={"select": select})
        return self.model_copy(update={"objective": objective})

    def canonical(self) -> dict[str, Any]:
        """Return the sweep as JSON values, with all defaults, so that equal sweeps give equal JSON.

        A parameter has the keys of the file (`float`, `int`, `choice`). Who is notified and how
        the cluster is shared are left out: they are no part of what the sweep is.
        """
        return self.model_dump(mode="json", by_alias=True, exclude=set(MACHINE_SECTIONS))
