"""What a sweep is opened with, and whether that is what it was started with."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from posetune.api import BadInputError
from posetune.spec.parameters import Scalar
from posetune.spec.sweep import SweepSpec
from posetune.study import journal, schema
from posetune.study.database import Database
from posetune.study.warm import WARM, gather

__all__ = ["Opening", "check_unchanged", "create_once"]

DIFF_LINES = 40
"""Lines of the difference shown when a sweep file has changed."""


@dataclass(frozen=True)
class Opening:
    """What a sweep is opened with."""

    name: str
    spec: SweepSpec
    source: str
    """The sweep file's text."""
    store: str
    store_digest: str
    provenance: Mapping[str, Any]
    defaults: Mapping[str, Scalar]
    """The parameters of trial 0."""

    @property
    def commit(self) -> dict[str, Any]:
        """The code of this driver's life: the commit, and the digest of what differs from it."""
        diff = self.provenance.get("diff") or {}
        return {"commit": self.provenance.get("commit"), "diff": diff.get("sha256")}


def _create(connection: Connection, opening: Opening) -> int:
    """Append the start of a new sweep, with what it learns from others, and return its id."""
    values = {
        "name": opening.name,
        "spec": opening.spec.canonical(),
        "source": opening.source,
        "store": opening.store,
        "store_digest": opening.store_digest,
        "provenance": dict(opening.provenance),
    }
    identity = journal.append(connection, schema.sweep, values)
    if opening.spec.sampler.start_from:
        data = gather(connection, opening.spec, opening.store_digest)
        event = {"sweep_id": identity, "kind": WARM, "data": data}
        journal.append(connection, schema.sweep_event, event)
    return identity


def create_once(database: Database, opening: Opening) -> int:
    """Append the start of a new sweep and return its id.

    Raises:
        BadInputError: it cannot start, or another process has just started it.
    """
    try:
        return database.write(lambda connection: _create(connection, opening))
    except IntegrityError as error:  # another driver has just started the same name
        raise BadInputError(
            f"sweep {opening.name}: was started at this moment by another process; "
            "give the command again to see whether it runs"
        ) from error


def check_unchanged(row: Mapping[str, Any], budget: Mapping[str, Any], opening: Opening) -> None:
    """Refuse to continue a sweep with another file or other data; a larger budget is welcome.

    Args:
        row: the sweep as it was started.
        budget: the budget that it was last started with.
        opening: what it is to be continued with.

    Raises:
        BadInputError: says what changed.
    """
    # Keys that came later have their defaults in the sweeps of before.
    old, new = SweepSpec.model_validate(row["spec"]).canonical(), opening.spec.canonical()
    changed = [
        f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in sorted({*old, *new} - {"store", "budget"})
        if old.get(name) != new.get(name)
    ]
    shrunk = [
        f"budget.{name}: {before} -> {new['budget'].get(name)}"
        for name, before in budget.items()
        if _less(new["budget"].get(name), before)
    ]
    if changed or shrunk:
        raise BadInputError(
            f"sweep {opening.name}: was started with another file; only its budget may grow.\n  "
            + "\n  ".join(changed + shrunk)
            + _difference(row["source"], opening.source)
            + "\nGive the file it was started with, or another --name."
        )
    if row["store_digest"] != opening.store_digest:
        raise BadInputError(
            f"sweep {opening.name}: its store has changed: it was started on {row['store']} with "
            f"digest {row['store_digest'][:12]}, {opening.store} has {opening.store_digest[:12]}. "
            "Give the store it was started with, or another --name."
        )


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
