"""`posetune check --address`: asks every node of a cluster, and prints what stands in the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rich.table import Table

from posetune.api import BadInputError, Trainable
from posetune.cli.screen import console
from posetune.home import Home
from posetune.spec.sweep import SweepSpec

__all__ = ["FAILED", "check_here", "show_preflight"]

FAILED = 4
"""Exit code of a preflight that found a fault; nothing was spent."""

Preflight = dict[str, Any]
"""A preflight as `posetune check --address --json` prints it."""


def check_here(
    spec: SweepSpec, trainable: type[Trainable], *, store: str, home: Home, address: str
) -> Preflight:
    """Check the cluster that this machine belongs to."""
    from posetune.execution.nodes.preflight import DRIVER, preflight
    from posetune.study.tables.database import reach_database
    from posetune.tracking.server.connection import reach_tracking

    def refused(reach: Callable[[], None], check: str) -> list[dict[str, str]]:
        try:
            reach()
        except BadInputError as error:
            return [{"node": DRIVER, "check": check, "text": str(error)}]
        return []

    faults: list[dict[str, str]] = refused(lambda: reach_database(home.database), "database")
    faults += refused(lambda: reach_tracking(home), "tracking")
    found = asdict(preflight(spec, trainable, store=store, home=home, address=address))
    return {**found, "faults": [*faults, *found["faults"]]}


def show_preflight(found: Preflight) -> None:
    """Print a line for each fault; without any, a table of the nodes."""
    for fault in found["faults"]:
        console.print(f"{fault['node']}: {fault['check']}: {fault['text']}", soft_wrap=True)
    if found["faults"]:
        return
    table = Table(box=None, pad_edge=False)
    for title in ("node", "cpu", "gpu", "trials", "free disk", "epoch", "memory", "GPU memory"):
        table.add_column(title, justify="left" if title == "node" else "right")
    for node in found["nodes"]:
        tried = bool(node["peak_bytes"])
        table.add_row(
            node["node"].removeprefix("node "),
            f"{node['cpu']:g}",
            f"{node['gpu']:g}",
            str(node["trials"]),
            "-" if node["free_bytes"] is None else _size(node["free_bytes"]),
            f"{node['epoch_s']:.3g} s" if tried else "-",
            f"{_size(node['peak_bytes'])} of {_size(node['memory_bytes'])}" if tried else "-",
            _size(node["gpu_peak_bytes"]) if node["gpu_peak_bytes"] else "-",
        )
    console.print(table)
    for node in found["nodes"]:
        if node["mps"]:
            console.print(f"{node['node'].removeprefix('node ')}: {node['mps']}", soft_wrap=True)
    console.print(
        f"good on {len(found['nodes'])} nodes: storage, disk ({_size(found['disk_bytes'])} at "
        f"most), versions, store, database, tracking; a few steps of {found['variants']} "
        "configurations on each node that holds trials"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
