"""Makes rows of events, and events of rows.

The fields `at`, `trial`, `epoch` and `metrics` are columns of the table; the others are one JSON
value, without those that have their default.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from posetune.study.events import Event
from posetune.study.faults import Fault, FaultKind
from posetune.study.records import CheckpointRecord, ExpectedGain
from posetune.study.search.rungs import Decision
from posetune.study.states import TrialState

__all__ = ["COLUMNS", "decode", "encode", "kind_of"]

COLUMNS = ("at", "trial", "epoch", "metrics")
"""Fields of events that have a column of their own in the table."""


def kind_of(cls: type[Event]) -> str:
    """Return what the database calls a class of events, such as `trial_asked`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


_CLASSES: dict[str, type[Event]] = {kind_of(cls): cls for cls in Event.__args__}
_KINDS = {cls: kind for kind, cls in _CLASSES.items()}
_DATA = {cls: [(f.name, f.default) for f in fields(cls) if f.name not in COLUMNS] for cls in _KINDS}
_HAS = {cls: [f.name for f in fields(cls) if f.name in COLUMNS] for cls in _KINDS}

_TUPLES = frozenset({"released", "displaced", "passed_over"})
"""Fields that are lists in the data of a row."""

_RECORDS = frozenset({"checkpoint", "fault", "gain"})
"""Fields that are objects in the data of a row."""


def _read_checkpoint(data: dict[str, Any]) -> CheckpointRecord:
    return CheckpointRecord(**data)


def _read_fault(data: dict[str, Any]) -> Fault:
    return Fault(**{**data, "kind": FaultKind(data["kind"])})


def _read_gain(data: dict[str, Any]) -> ExpectedGain:
    return ExpectedGain(**data)


def _read_finalists(data: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(values) for values in data)


_READ: dict[str, Callable[[Any], Any]] = {
    "checkpoint": _read_checkpoint,
    "fault": _read_fault,
    "gain": _read_gain,
    "finalists": _read_finalists,
    "decision": Decision,
    "state": TrialState,
    **dict.fromkeys(_TUPLES, tuple),
}
"""How a field is made from the data of a row, where that is no plain value."""
_READERS = {
    kind: (cls, [(f.name, _READ[f.name]) for f in fields(cls) if f.name in _READ])
    for kind, cls in _CLASSES.items()
}
"""The class of each kind of event, and those of its fields."""


def encode(event: Event) -> dict[str, Any]:
    """Return an event as a row: its kind, its columns and its data without what is the default."""
    cls = type(event)
    data = {
        name: value for name, default in _DATA[cls] if (value := getattr(event, name)) != default
    }
    for name in _RECORDS & data.keys():
        data[name] = dataclasses.asdict(data[name])
    if "finalists" in data:
        data["finalists"] = [list(values) for values in data["finalists"]]
    for name in _TUPLES & data.keys():
        data[name] = list(data[name])
    row = {name: getattr(event, name) for name in _HAS[cls]}
    return {"kind": _KINDS[cls], **dict.fromkeys(COLUMNS), **row, "data": data}


def decode(
    kind: str, at: float, trial: int | None, epoch: int | None, data: dict[str, Any]
) -> Event:
    """Return the event of a row; its metrics are left out.

    Args:
        kind: as `kind_of` names it.
        at: the column.
        trial: the column; None where the kind has none.
        epoch: the column; None where the kind has none.
        data: the other fields; used up.
    """
    data["at"] = at
    if trial is not None:
        data["trial"] = trial
    if epoch is not None:
        data["epoch"] = epoch
    cls, readers = _READERS[kind]
    for name, read in readers:
        if name in data:
            data[name] = read(data[name])
    return cls(**data)
