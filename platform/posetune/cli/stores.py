"""Finds the store that a command runs on."""

from __future__ import annotations

from pathlib import Path

from posetune.api import BadInputError, StoreSummary, Trainable
from posetune.spec import SweepSpec

__all__ = ["find_store"]


def find_store(
    spec: SweepSpec, trainable: type[Trainable], override: Path | None
) -> tuple[Path, StoreSummary]:
    """Return the store named by --store or by the sweep file, and what is in it.

    Raises:
        BadInputError: none is named, or it is no store.
    """
    named = override or (Path(spec.store) if spec.store else None)
    if named is None:
        raise BadInputError("no store: name one with --store, or as `store:` in the sweep file")
    store = named.expanduser().absolute()
    if not store.exists():
        raise BadInputError(
            f"no store at {named}; make one, for example: "
            f"posetune data import --format procedural --out {named}"
        )
    return store, trainable.describe_store(store)
