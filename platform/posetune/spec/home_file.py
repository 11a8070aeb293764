"""Says what `posetune.yaml` in a home may say: what holds for all sweeps of the home."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from posetune.api import BadInputError
from posetune.spec.documents import describe_errors, read_document
from posetune.spec.notify import Destination, check_distinct
from posetune.spec.parameters import Frozen
from posetune.spec.sweep import SweepSpec

__all__ = ["HOME_FILE", "HomeFile", "priced_by", "read_home_destinations", "read_home_file"]

HOME_FILE = "posetune.yaml"
"""Name of the file."""

_AGE = r"^[1-9]\d{0,4}[dw]$"
"""Days or weeks, as 90d."""


class AliasRule(Frozen):
    """Says what an alias asks for before it moves, beside the gate."""

    approve: int = Field(
        0, ge=0, le=5, description="How many persons beside the one who promotes have to agree."
    )


class Retention(Frozen):
    """Says which sweeps `posetune clean` takes away."""

    older_than: str = Field(
        pattern=_AGE,
        description="Age of a sweep's last event from which it may go, as 90d or 12w.",
    )
    keep: tuple[Literal["best", "registered", "unfinished"], ...] = Field(
        ("best", "registered", "unfinished"),
        description="Sweeps that stay whatever their age: the `best` of those with the same model, "
        "data and objective, those with a `registered` version, those that are `unfinished`.",
    )

    @field_validator("older_than", mode="before")
    @classmethod
    def _age_has_its_unit(cls, given: object) -> object:
        if not isinstance(given, str) or not re.fullmatch(_AGE, given):
            raise ValueError("write days or weeks with their letter, e.g. 90d or 12w")
        return given

    @field_validator("keep", mode="before")
    @classmethod
    def _kept_is_a_list(cls, given: object) -> object:
        known = ("best", "registered", "unfinished")
        if not isinstance(given, list | tuple) or any(one not in known for one in given):
            raise ValueError(
                "write a list of what stays, of best, registered and unfinished, e.g. [best]"
            )
        return given

    @property
    def older_than_s(self) -> float:
        """The age in seconds."""
        days = {"d": 1, "w": 7}[self.older_than[-1]]
        return 86_400.0 * days * int(self.older_than[:-1])


class HomeFile(Frozen):
    """Holds what `posetune.yaml` in a home says."""

    notify: tuple[Destination, ...] = Field((), description="Who is told of all its sweeps.")
    cost_per_gpu_hour: float | None = Field(
        None, gt=0, description="What a GPU costs for an hour, in `currency`."
    )
    currency: str = Field(
        "", max_length=8, description="Name of the currency of `cost_per_gpu_hour`, e.g. EUR."
    )

    retention: Retention | None = Field(
        None, description="Which sweeps `posetune clean` takes away; without it, none."
    )
    registry: dict[str, AliasRule] = Field(
        default_factory=dict, description="What an alias asks for, by its name, e.g. champion."
    )

    def approvals(self, alias: str) -> int:
        """Return how many other persons have to agree before an alias moves."""
        return self.registry.get(alias, AliasRule()).approve

    @field_validator("registry")
    @classmethod
    def _candidate_is_free(cls, given: dict[str, AliasRule]) -> dict[str, AliasRule]:
        if "candidate" in given:
            raise ValueError("candidate is the alias that moves without asking anybody")
        return given

    @model_validator(mode="after")
    def _names_are_distinct(self) -> HomeFile:
        check_distinct(self.notify)
        return self


def read_home_file(folder: Path) -> HomeFile:
    """Return what a home's `posetune.yaml` says; nothing where there is no such file.

    Raises:
        BadInputError: something in the file is wrong. The message names file, line and key.
    """
    file = folder / HOME_FILE
    if not file.exists():
        return HomeFile()
    document = read_document(file)
    try:
        return HomeFile.model_validate(document.content)
    except ValidationError as error:
        raise BadInputError(describe_errors(error, document)) from error


def priced_by(spec: SweepSpec, folder: Path) -> SweepSpec:
    """Return a sweep that knows what a GPU-hour costs, where its budget has a limit of cost.

    Raises:
        BadInputError: neither the sweep file nor the home's `posetune.yaml` says it.
    """
    if spec.budget.cost is None:
        return spec
    found = spec.priced(read_home_file(folder).cost_per_gpu_hour)
    if found.budget.cost_per_gpu_hour is None:
        raise BadInputError(
            f"budget.cost: {spec.budget.cost:g}: nobody says what a GPU-hour costs; write "
            f"cost_per_gpu_hour into {folder / HOME_FILE}, or into the file's budget"
        )
    return found


def read_home_destinations(folder: Path) -> tuple[Destination, ...]:
    """Return the destinations of a home's `posetune.yaml`; none where there is no such file.

    Raises:
        BadInputError: something in the file is wrong. The message names file, line and key.
    """
    return read_home_file(folder).notify
