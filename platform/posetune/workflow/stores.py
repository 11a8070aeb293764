"""Finds the store that a command runs on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from posetune.api import BadInputError, StoreSummary, Trainable
from posetune.spec.sweep import SweepSpec
from posetune.storage import open_folder, open_storage

__all__ = ["FoundStore", "find_store"]


@dataclass(frozen=True)
class FoundStore:
    """Holds where a store is, and what is in it."""

    address: str
    """Address of the store: a folder that the driver sees, or s3://..."""
    folder: Path
    """Folder of this node with the store."""
    summary: StoreSummary


def find_store(spec: SweepSpec, trainable: type[Trainable], override: str | None) -> FoundStore:
    """Return the store named by --store or by the sweep file.

    Raises:
        BadInputError: none is named, it is no store, or it lacks what the objective needs.
    """
    named = override or spec.store
    if named is None:
        raise BadInputError("no store: name one with --store, or as `store:` in the sweep file")
    store = open_folder(named)
    if not store.exists():
        raise BadInputError(
            f"no store at {named}; make one, for example: "
            f"posetune data import --format procedural --out {named}"
        )
    summary = trainable.describe_store(store)
    lacks = summary.unavailable.get(spec.objective.metric)
    if lacks is not None:
        others = [n for n in trainable.metrics if n not in summary.unavailable]
        offered = ", ".join(name for name in others if name.startswith("val/"))
        raise BadInputError(
            f"objective {spec.objective.metric}: {named} {lacks}; write another metric in the "
            f"sweep file ({offered})"
        )
    return FoundStore(open_storage(named).address, store, summary)
