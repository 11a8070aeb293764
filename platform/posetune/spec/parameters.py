"""Defines the parameters that a sweep file can search: ranges of numbers and lists of values."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

__all__ = ["Choice", "FloatRange", "Frozen", "IntRange", "Parameter", "Scalar"]

Scalar: TypeAlias = bool | int | float | str
"""Type of the value that a trial has for one searched parameter."""


class Frozen(BaseModel):
    """Is the base of every part of a sweep file: it never changes and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _refuse_words(bounds: Any) -> Any:
    """Refuse true and false as bounds; YAML also reads the plain words no, yes, off and on so."""
    if isinstance(bounds, list | tuple) and any(isinstance(bound, bool) for bound in bounds):
        raise ValueError("must be two numbers (yes, no, on and off are true and false in YAML)")
    return bounds


class FloatRange(Frozen):
    """Describes a parameter that is a real number between two bounds, both included."""

    bounds: tuple[float, float] = Field(
        alias="float", description="Lowest and highest value that a trial may have, both included."
    )
    log: bool = Field(
        False,
        description="Whether values are drawn evenly over the logarithm; the bounds are above 0.",
    )
    step: float | None = Field(
        None,
        gt=0,
        description="Distance between neighbouring values, counted from the lowest; every real "
        "number between the bounds is a value if no step is given.",
    )

    _numbers = field_validator("bounds", mode="before")(_refuse_words)

    @model_validator(mode="after")
    def _is_a_range(self) -> FloatRange:
        _check_range(self.bounds, self.log)
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        return self

    @property
    def corners(self) -> tuple[float, float]:
        """The lowest and the highest value; a trainable that takes both takes all between them."""
        if self.step is None:
            return self.bounds
        return self._on_grid(0), self._on_grid(self._last)

    def nearest(self, value: float) -> float:
        """Return the value of the range that is nearest to a number."""
        low, high = self.corners
        clipped = min(max(value, low), high)
        if self.step is None:
            return clipped
        return self._on_grid(min(round((clipped - low) / self.step), self._last))

    def holds(self, value: float) -> bool:
        """Whether a number is a value of the range, but for the rounding of a step."""
        low, high = self.corners
        if self.step is None:
            return low <= value <= high
        tolerance = 1e-8 * self.step
        is_between = low - tolerance <= value <= high + tolerance
        return is_between and abs(value - self.nearest(value)) <= tolerance

    # A range with a step has one grid, and this is its only computation. It is decimal, as the
    # numbers in a sweep file are: 0.01 + 2 * 0.1 is 0.21 here and 0.21000000000000002 in floats,
    # which Optuna takes for a value above the highest.

    @property
    def _last(self) -> int:
        """The number of steps from the lowest to the highest value."""
        low, high = (Decimal(str(bound)) for bound in self.bounds)
        return int((high - low) // Decimal(str(self.step)))

    def _on_grid(self, steps: int) -> float:
        return float(Decimal(str(self.bounds[0])) + steps * Decimal(str(self.step)))


class IntRange(Frozen):
    """Describes a parameter that is a whole number between two bounds, both included."""

    bounds: tuple[int, int] = Field(
        alias="int", description="Lowest and highest value that a trial may have, both included."
    )
    log: bool = Field(
        False,
        description="Whether values are drawn evenly over the logarithm; the bounds are above 0.",
    )
    step: int = Field(
        1,
        ge=1,
        strict=True,
        description="Distance between neighbouring values, counted from the lowest bound.",
    )

    _numbers = field_validator("bounds", mode="before")(_refuse_words)

    @model_validator(mode="after")
    def _is_a_range(self) -> IntRange:
        _check_range(self.bounds, self.log)
        if self.log and self.step != 1:
            raise ValueError("log and step exclude each other")
        return self

    @property
    def corners(self) -> tuple[int, int]:
        """The lowest and the highest value; a trainable that takes both takes all between them."""
        low, high = self.bounds
        return (low, high - (high - low) % self.step)

    def nearest(self, value: float) -> int:
        """Return the value of the range that is nearest to a number."""
        low, high = self.corners
        steps = round((min(max(value, low), high) - low) / self.step)
        return min(low + steps * self.step, high)

    def holds(self, value: float) -> bool:
        """Whether a number is a value of the range."""
        low, high = self.corners
        return isinstance(value, int) and low <= value <= high and (value - low) % self.step == 0


class Choice(Frozen):
    """Describes a parameter that is one of a list of values."""

    values: tuple[Scalar, ...] = Field(
        alias="choice", min_length=1, description="Values that a trial may have, each one once."
    )
    unordered: bool = Field(
        False,
        strict=True,
        description="Whether numbers in `choice` are names that have no order, such as the numbers "
        "of data sets. Otherwise the sampler takes numbers for a grid, where neighbours are alike.",
    )

    @model_validator(mode="after")
    def _has_no_value_twice(self) -> Choice:
        if len({(type(v), v) for v in self.values}) < len(self.values):
            raise ValueError(f"a value is given twice in {list(self.values)}; give each one once")
        return self

    @property
    def is_ordered(self) -> bool:
        """Whether the values are numbers of a grid, so that neighbours are alike."""
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.values)
        return numbers and not self.unordered

    @property
    def corners(self) -> tuple[Scalar, ...]:
        """All values of the list, since a trainable may refuse any one of them."""
        return self.values


def _check_range(bounds: tuple[float, float], log: bool) -> None:
    low, high = bounds
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError(f"must have finite bounds, got [{low}, {high}]")
    if not low < high:
        raise ValueError(f"must be [low, high] with low < high, got [{low}, {high}]")
    if not math.isfinite(high - low):
        raise ValueError(f"[{low}, {high}] is wider than the largest number; give closer bounds")
    if log and low <= 0:
        raise ValueError(f"log needs bounds above 0, got [{low}, {high}]")


def _kind(value: Any) -> str | None:
    """Return the tag of the parameter class that a value is meant for; None if none or several."""
    if isinstance(value, FloatRange | IntRange | Choice):
        return {FloatRange: "kind:float", IntRange: "kind:int", Choice: "kind:choice"}[type(value)]
    kinds = [k for k in ("float", "int", "choice") if isinstance(value, dict) and k in value]
    return f"kind:{kinds[0]}" if len(kinds) == 1 else None


# pydantic would try all three classes and report the faults of each; told which one is meant by
# the tag, it reports those of that class alone.
Parameter: TypeAlias = Annotated[
    Annotated[FloatRange, Tag("kind:float")]
    | Annotated[IntRange, Tag("kind:int")]
    | Annotated[Choice, Tag("kind:choice")],
    Discriminator(
        _kind,
        custom_error_type="parameter",
        custom_error_message="must be {float: [low, high]}, {int: [low, high]} or {choice: [...]}",
    ),
]
