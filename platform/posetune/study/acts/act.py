"""Defines what a person can do to a sweep, one frozen model for each act."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from posetune.spec.parameters import Frozen, Scalar

__all__ = [
    "AT_ONCE",
    "Act",
    "AddNote",
    "BranchTrial",
    "EditSweep",
    "Enqueue",
    "ExtendTrial",
    "HoldSweep",
    "PinTrial",
    "ReleaseSweep",
    "RetryTrial",
    "SetTag",
    "StopTrial",
    "UnknownAct",
    "act_of",
]

TrialNumber: TypeAlias = Annotated[int, Field(ge=0)]


class AddNote(Frozen):
    """Writes a note about a sweep or a trial."""

    kind: Literal["note"] = "note"
    text: str = Field(min_length=1, max_length=4000, description="What the note says.")
    trial: TrialNumber | None = Field(None, description="The trial; the sweep where it is absent.")


class SetTag(Frozen):
    """Gives a sweep or a trial a tag, or takes one away."""

    kind: Literal["tag"] = "tag"
    name: str = Field(pattern=r"^[\w][\w.-]{0,63}$", description="Name of the tag.")
    value: str | None = Field(
        "", max_length=400, description="Value of the tag; null takes the tag away."
    )
    trial: TrialNumber | None = Field(None, description="The trial; the sweep where it is absent.")


class StopTrial(Frozen):
    """Ends a trial after the epoch that is under way; it can be taken up again."""

    kind: Literal["stop"] = "stop"
    trial: TrialNumber


class PinTrial(Frozen):
    """Lets an open trial run to its last epoch, whatever the pruner says."""

    kind: Literal["pin"] = "pin"
    trial: TrialNumber


class RetryTrial(Frozen):
    """Takes up a failed or stopped trial again, from its last checkpoint."""

    kind: Literal["retry"] = "retry"
    trial: TrialNumber


class ExtendTrial(Frozen):
    """Lets a complete or pruned trial train up to a later epoch."""

    kind: Literal["extend"] = "extend"
    trial: TrialNumber
    epochs: int = Field(ge=1, strict=True, description="The trial's last epoch from now on.")


class BranchTrial(Frozen):
    """Begins a new trial at another one's checkpoint, with other parameters."""

    kind: Literal["branch"] = "branch"
    trial: TrialNumber
    epochs: int = Field(ge=1, strict=True, description="The new trial's last epoch.")
    params: dict[str, Scalar] = Field(
        description="Values of searched fields; the others have those of the parent."
    )


class Enqueue(Frozen):
    """Chooses the parameters of the next trial."""

    kind: Literal["enqueue"] = "enqueue"
    params: dict[str, Scalar] = Field(
        description="Values of searched fields; the others have those of trial 0."
    )


class HoldSweep(Frozen):
    """Lets every trial save and wait, and gives the slots back."""

    kind: Literal["hold"] = "hold"


class ReleaseSweep(Frozen):
    """Lets a sweep go on that was held."""

    kind: Literal["release"] = "release"


class EditSweep(Frozen):
    """Gives a sweep another budget, other bounds or other rungs."""

    kind: Literal["edit"] = "edit"
    spec: dict[str, Any] = Field(description="What the new file says, with all defaults.")
    source: str = Field(description="The new file's text.")


class UnknownAct(Frozen):
    """Is what a row says that no act of this posetune has written; no driver can do it."""

    kind: Literal["unknown"] = "unknown"
    content: dict[str, Any] = Field(description="What the row says.")


Act: TypeAlias = Annotated[
    AddNote
    | SetTag
    | StopTrial
    | PinTrial
    | RetryTrial
    | ExtendTrial
    | BranchTrial
    | Enqueue
    | HoldSweep
    | ReleaseSweep
    | EditSweep
    | UnknownAct,
    Field(discriminator="kind"),
]

AT_ONCE = ("note", "tag", "stop")
"""The kinds that become events at once where no driver is at work."""

_ADAPTER: TypeAdapter[Act] = TypeAdapter(Act)


def act_of(content: dict[str, Any]) -> Act:
    """Return the act that JSON says; an `UnknownAct` where it says none."""
    try:
        return _ADAPTER.validate_python(content)
    except ValidationError:
        return UnknownAct(content=content)
