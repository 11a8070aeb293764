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
        BadInputError: none is named, it is no store, or it lacks what the objective needs.
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
    summary = trainable.describe_store(store)
    lacks = summary.unavailable.get(spec.objective.metric)
    if lacks is not None:
        others = [n for n in trainable.metrics if n not in summary.unavailable]
        offered = ", ".join(name for name in others if name.startswith("val/"))
        raise BadInputError(
            f"objective {spec.objective.metric}: {named} {lacks}; write another metric in the "
            f"sweep file ({offered})"
        )
    return store, summary
