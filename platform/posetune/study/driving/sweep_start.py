"""Starts a sweep, and checks that one is continued with what it was started with."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import BaseModel
from sqlalchemy import Connection, insert
from sqlalchemy.exc import IntegrityError

from posetune.api import BadInputError
from posetune.spec.parameters import Scalar
from posetune.spec.sweep import MACHINE_FIELDS, MACHINE_SECTIONS, SweepSpec
from posetune.study.events import SEMANTICS, SweepStarted
from posetune.study.search.start_from import gather
from posetune.study.tables import journal, schema
from posetune.study.tables.database import Database

__all__ = ["SweepStart", "check_unchanged", "create_once"]

DIFF_LINES = 40
"""Number of lines of the difference that are shown when a sweep file has changed."""


@dataclass(frozen=True)
class SweepStart:
    """What a sweep is started or continued with."""

    name: str
    spec: SweepSpec
    source: str
    """The sweep file's text."""
    store: str
    store_digest: str
    provenance: Mapping[str, Any]
    defaults: Mapping[str, Scalar]
    """The parameters of trial 0."""
    by: str = ""
    """Who gives the command, as person@host."""
    finalists: tuple[tuple[float, ...], ...] = ()
    """Values of trials of the sweep that were trained again with further seeds, for each trial."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The trainable's configuration where nothing else is given, by dotted name."""

    @property
    def commit(self) -> dict[str, Any]:
        """The code of this driver's life: the commit, and the digest of what differs from it."""
        diff = self.provenance.get("diff") or {}
        return {"commit": self.provenance.get("commit"), "diff": diff.get("sha256")}


def _create(connection: Connection, start: SweepStart, at: float) -> int:
    """Append the start of a new sweep, with what it learns from others, and return its id."""
    values = {
        "name": start.name,
        "spec": start.spec.canonical(),
        "source": start.source,
        "store": start.store,
        "store_digest": start.store_digest,
        "provenance": dict(start.provenance),
    }
    key = connection.execute(insert(schema.sweep).values(at=at, **values)).inserted_primary_key
    identity = int(key[0]) if key else 0
    prior, notes = gather(connection, start.spec, start.store_digest, start.config)
    journal.append_event(
        connection, identity, 1, SweepStarted(at, SEMANTICS, prior, notes, start.by)
    )
    return identity


def create_once(database: Database, start: SweepStart, at: float) -> int:
    """Append the start of a new sweep and return its id.

    Raises:
        BadInputError: it cannot start, or another process has just started it.
    """
    try:
        return database.write(lambda connection: _create(connection, start, at))
    except IntegrityError as error:  # another driver has just started the same name
        raise BadInputError(
            f"sweep {start.name}: was started at this moment by another process; "
            "give the command again to see whether it runs"
        ) from error


def check_unchanged(row: Mapping[str, Any], budget: Mapping[str, Any], start: SweepStart) -> None:
    """Refuse to continue a sweep with another file or other data; a larger budget is welcome.

    What belongs to the machine may differ, too.

    What neither the file of then nor that of now says may differ: a default has changed since, and
    the sweep keeps that of then.

    Args:
        row: the sweep as it was started.
        budget: the budget that it was last started with.
        start: what it is to be continued with.

    Raises:
        BadInputError: says what changed.
    """
    # Keys that came later have their defaults in the sweeps of before.
    old, new = SweepSpec.model_validate(row["spec"]).canonical(), start.spec.canonical()
    written = _written_keys(row["source"]), _set_keys(start.spec)
    for spec in (old, new):  # the machine's: it may change at any time
        spec["resources"] = {k: v for k, v in spec["resources"].items() if k not in MACHINE_FIELDS}
    changed = [
        f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in sorted({*old, *new} - {"store", "budget", *MACHINE_SECTIONS})
        if _differs(name, old.get(name), new.get(name), written)
    ]
    shrunk = [
        f"budget.{name}: {before} -> {new['budget'].get(name)}"
        for name, before in budget.items()
        if name not in ("target", "patience", "cost_per_gpu_hour")
        and _less(new["budget"].get(name), before)
    ]
    if changed or shrunk:
        raise BadInputError(
            f"sweep {start.name}: was started with another file; only its budget may grow.\n  "
            + "\n  ".join(changed + shrunk)
            + _difference(row["source"], start.source)
            + f"\nWays on: {'; '.join(_ways_on(start, bool(changed)))}."
        )
    if row["store_digest"] != start.store_digest:
        raise BadInputError(
            f"sweep {start.name}: its store has changed: it was started on {row['store']} with "
            f"digest {row['store_digest'][:12]}, {start.store} has {start.store_digest[:12]}. "
            "Give the store it was started with, or another --name."
        )


def _ways_on(start: SweepStart, is_another: bool) -> list[str]:
    """Return what a person can do whose file is not the one that a sweep was started with.

    Args:
        start: what the sweep was to be continued with.
        is_another: whether more than the budget differs.
    """
    ways = [f"continue {start.name} with the file it was started with or edited to"]
    if is_another:
        ways.append(f"edit the sweep (posetune edit {start.name} FILE)")
        ways.append("start this file as a sweep of its own (--name OTHER)")
        learns = f"sampler: {{start_from: [{start.name}]}}"
        ways.append(f"let that one learn from the trials there are ({learns} in the file)")
    ways.append("a larger budget of the same sweep needs no other name")
    return ways


def _differs(name: str, old: Any, new: Any, written: Sequence[Collection[str] | None]) -> bool:
    """Whether a section of the file has changed, and not only a default of what neither file says.

    Args:
        name: the section.
        old: its values as the sweep was started, defaults included.
        new: its values now.
        written: the dotted keys that the file of then says, and that of now; None where every key
            has to be taken for one.
    """
    if old == new or not isinstance(old, dict) or not isinstance(new, dict):
        return bool(old != new)
    keys = [key for key in {*old, *new} if old.get(key) != new.get(key)]
    return any(found is None or f"{name}.{key}" in found for key in keys for found in written)


def _written_keys(source: str) -> set[str] | None:
    """Return the dotted keys of a sweep file's text, two levels deep; None where it is not one."""
    try:
        content = yaml.safe_load(source)
    except yaml.YAMLError:
        return None
    if not isinstance(content, dict):
        return None
    sections = {name: part for name, part in content.items() if isinstance(part, dict)}
    return {f"{name}.{key}" for name, part in sections.items() for key in part}


def _set_keys(spec: SweepSpec) -> set[str]:
    """Return the dotted keys that were given for a sweep, two levels deep."""
    keys = set()
    for name in spec.model_fields_set:
        section = getattr(spec, name)
        given = section.model_fields_set if isinstance(section, BaseModel) else ()
        keys |= {f"{name}.{key}" for key in (section if isinstance(section, dict) else given)}
    return keys


def _difference(before: str, after: str) -> str:
    """Return what changed in the file's text, in the usual notation and not too long."""
    lines = list(
        difflib.unified_diff(
            before.splitlines(), after.splitlines(), "as started", "now", lineterm="", n=1
        )
    )
    if len(lines) > DIFF_LINES:
        lines[DIFF_LINES:] = [f"... {len(lines) - DIFF_LINES} more lines"]
    return "".join(f"\n  {line}" for line in lines)


def _less(after: float | None, before: float | None) -> bool:
    """Whether a limit shrank; None is no limit."""
    return after is not None and (before is None or after < before)
