"""What a sweep file can search over: ranges of numbers and lists of values."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

__all__ = ["Choice", "FloatRange", "Frozen", "IntRange", "Parameter", "Scalar"]

Scalar: TypeAlias = bool | int | float | str


class Frozen(BaseModel):
    """Part of a sweep file: never changes, and forbids what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class FloatRange(Frozen):
    """A real number between two bounds, both included."""

    bounds: tuple[float, float] = Field(alias="float")
    log: bool = False
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _is_a_range(self) -> FloatRange:
        _check_range(self.bounds, self.log)
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        return self

    @property
    def corners(self) -> tuple[Scalar, ...]:
        """The values whose validity implies that of all."""
        return self.bounds


class IntRange(Frozen):
    """A whole number between two bounds, both included."""

    bounds: tuple[int, int] = Field(alias="int")
    log: bool = False
    step: int = Field(1, ge=1, strict=True)

    @model_validator(mode="after")
    def _is_a_range(self) -> IntRange:
        _check_range(self.bounds, self.log)
        if self.log and self.step != 1:
            raise ValueError("log and step exclude each other")
        return self

    @property
    def corners(self) -> tuple[Scalar, ...]:
        """The values whose validity implies that of all."""
        low, high = self.bounds
        return (low, high - (high - low) % self.step)


class Choice(Frozen):
    """One of a list of values."""

    values: tuple[Scalar, ...] = Field(alias="choice", min_length=1)

    @model_validator(mode="after")
    def _has_no_value_twice(self) -> Choice:
        if len({(type(v), v) for v in self.values}) < len(self.values):
            raise ValueError(f"a value stands twice in {list(self.values)}")
        return self

    @property
    def corners(self) -> tuple[Scalar, ...]:
        """The values whose validity implies that of all."""
        return self.values


def _check_range(bounds: tuple[float, float], log: bool) -> None:
    low, high = bounds
    if not low < high:
        raise ValueError(f"must be [low, high] with low < high, got [{low}, {high}]")
    if log and low <= 0:
        raise ValueError(f"log needs bounds above 0, got [{low}, {high}]")


def _kind(value: Any) -> str | None:
    if isinstance(value, FloatRange | IntRange | Choice):
        return {FloatRange: "kind:float", IntRange: "kind:int", Choice: "kind:choice"}[type(value)]
    kinds = [k for k in ("float", "int", "choice") if isinstance(value, dict) and k in value]
    return f"kind:{kinds[0]}" if len(kinds) == 1 else None


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
