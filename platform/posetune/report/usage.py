"""Puts together what sweeps have used: by owner, by sweep or by tag, with what it cost."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from posetune.api import BadInputError
from posetune.spec.home_file import HomeFile
from posetune.study.budget import kilowatt_hours
from posetune.study.usage import SweepUsage
from posetune.study.view import SweepView

__all__ = [
    "By",
    "Usage",
    "cost_line",
    "cost_of",
    "group",
    "moment",
    "total",
    "usage_json",
    "usage_table",
]

By = Literal["owner", "sweep", "tag"]
"""What the numbers are put together by."""

_NONE = "(none)"
_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@dataclass(frozen=True)
class Usage:
    """Says what the sweeps of one owner or of one tag have used."""

    name: str
    sweeps: int
    trials: int
    epochs: int
    slot_hours: float
    gpu_hours: float
    cost: float | None
    """None where the home's file names no cost."""
    energy_kwh: float | None
    """Energy of GPUs; None where nothing was measured."""


def moment(since: str) -> float:
    """Return the moment that a text like 30d, 12h or 2026-11-01 means, s since the epoch.

    Raises:
        BadInputError: it means none.
    """
    ago = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([mhdw])", since)
    if ago is not None:
        return time.time() - float(ago[1]) * _UNITS_S[ago[2]]
    try:
        return datetime.fromisoformat(since).timestamp()
    except ValueError:
        raise BadInputError(
            f"--since {since}: must be a time like 30d, 12h or 90m, or a date like 2026-11-01"
        ) from None


def group(found: Iterable[SweepUsage], by: By, file: HomeFile) -> list[Usage]:
    """Return what was used by each owner, sweep or tag, the largest first.

    A sweep with several tags counts under each. Sweeps that have used nothing are left out.
    """
    parts: dict[str, list[SweepUsage]] = {}
    for usage in found:
        if usage.trials:
            for name in _names(usage, by):
                parts.setdefault(name, []).append(usage)
    groups = [total(name, usages, file) for name, usages in parts.items()]
    return sorted(groups, key=lambda usage: (-usage.gpu_hours, -usage.slot_hours, usage.name))


def total(name: str, usages: Sequence[SweepUsage], file: HomeFile) -> Usage:
    """Return the sum of what sweeps have used."""
    gpu_hours = sum(usage.gpu_hours for usage in usages)
    known = [usage.energy_j for usage in usages if usage.energy_j is not None]
    return Usage(
        name=name,
        sweeps=sum(usage.trials > 0 for usage in usages),
        trials=sum(usage.trials for usage in usages),
        epochs=sum(usage.epochs for usage in usages),
        slot_hours=sum(usage.slot_hours for usage in usages),
        gpu_hours=gpu_hours,
        cost=None if file.cost_per_gpu_hour is None else gpu_hours * file.cost_per_gpu_hour,
        energy_kwh=kilowatt_hours(sum(known)) if known else None,
    )


def usage_table(groups: Sequence[Usage], whole: Usage, *, by: By, currency: str) -> Table:
    """Return the numbers as a table, with the sum in its last line."""
    cost = [f"cost {currency}".strip()] if whole.cost is not None else []
    beside = [*cost, *(["kWh of GPUs"] if whole.energy_kwh is not None else [])]
    table = Table(by, "sweeps", "trials", "epochs", "slot-hours", "GPU-hours", *beside, box=SIMPLE)
    for usage in [*groups, whole]:
        if usage is whole:
            table.add_section()
        numbers = [f"{usage.slot_hours:.2f}", f"{usage.gpu_hours:.2f}"]
        spent = [] if usage.cost is None else [f"{usage.cost:.2f}"]
        if whole.energy_kwh is not None:
            spent.append("-" if usage.energy_kwh is None else f"{usage.energy_kwh:.3g}")
        counts = map(str, (usage.sweeps, usage.trials, usage.epochs))
        table.add_row(Text(usage.name), *counts, *numbers, *spent)
    return table


def cost_of(view: SweepView, file: HomeFile) -> dict[str, Any] | None:
    """Return what a sweep has cost so far; None where that is not known, or it has no GPU."""
    if file.cost_per_gpu_hour is None or not view.spec.resources.gpu:
        return None
    amount = view.gpu_hours * file.cost_per_gpu_hour
    return {"amount": amount, "currency": file.currency, "per_gpu_hour": file.cost_per_gpu_hour}


def cost_line(view: SweepView, file: HomeFile) -> str:
    """Return the same in words; empty where there is nothing to say."""
    cost = cost_of(view, file)
    if cost is None:
        return ""
    amount = f"{cost['amount']:.2f} {file.currency}".strip()
    return f"{amount} ({view.gpu_hours:.3g} GPU-hours at {file.cost_per_gpu_hour:g})"


def _names(usage: SweepUsage, by: By) -> list[str]:
    if by == "sweep":
        return [usage.sweep]
    if by == "owner":
        return [usage.owner.partition("@")[0] or _NONE]
    named = [f"{name}={value}" if value else name for name, value in usage.tags.items()]
    return named or [_NONE]


def usage_json(groups: Sequence[Usage], whole: Usage) -> dict[str, Any]:
    """Return the numbers as JSON values."""
    return {"groups": [asdict(usage) for usage in groups], "total": asdict(whole)}
