"""Says where the data of a sweep is, for all nodes of its cluster."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StorePlace"]


@dataclass(frozen=True)
class StorePlace:
    """Where a sweep's store is; plain values that travel to any node."""

    address: str
    """A folder that the driver sees, or s3://..."""
    digest: str
    """What the store holds; empty where it could not be read."""
    node: str = ""
    """Ray's id of the node that has the folder, from which others copy it; empty without Ray."""
