"""A cluster under a running sweep: room for trials, nodes that leave, and what trials wait for.

Each trial takes a placement group of its own, named after its sweep: so drivers that share a
cluster see who holds what.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

import ray
from ray.tune import PlacementGroupFactory
from ray.util import placement_group_table
from ray.util.placement_group import PlacementGroup, placement_group

from posetune.execution.desk import Desk
from posetune.execution.places import Holding, Node, describe_wait, slots
from posetune.spec import Resources

__all__ = ["Lookout", "TrialRequest", "read_nodes"]

LOOK_S = 1.0
"""Between two looks at the cluster."""

WAIT_S = 3.0
"""A trial without a place for longer is said to wait."""

SAY_S = 30.0
"""Between two entries in the study of what it waits for, when only that changes."""

NODE_DEATH_S = 60.0
"""Ray notices a worker's end in seconds, and that its whole node is gone only later."""

_PREFIX = "posetune"


class TrialRequest(PlacementGroupFactory):
    """What one trial of a sweep asks of Ray; the group has a name that tells the sweep."""

    def __init__(self, sweep: str, resources: Resources) -> None:
        self._sweep = sweep
        self._selector = [dict(resources.labels)] if resources.labels else None
        bundle = {"CPU": resources.cpu, "GPU": resources.gpu}
        super().__init__([bundle], bundle_label_selector=self._selector)

    def to_placement_group(self) -> PlacementGroup:
        """Ask for it; Ray wants every name to be unique."""
        name = f"{_PREFIX}:{self._sweep}:{uuid.uuid4().hex}"
        group: PlacementGroup = placement_group(
            self.bundles, self.strategy, name=name, bundle_label_selector=self._selector
        )
        return group


def read_nodes() -> list[Node]:
    """Return the living nodes."""
    # Ray Train reads drains from the same place; there is no public one.
    leaving = ray._private.state.state.get_draining_nodes()
    free = ray._private.state.available_resources_per_node()
    return [
        Node(
            node["NodeID"],
            _amounts(node["Resources"]),
            _amounts(free.get(node["NodeID"], {})),
            node["Labels"],
            leaving=node["NodeID"] in leaving,
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


class Lookout:
    """Looks at the cluster now and then, for the searcher, the scheduler and the user."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._resources = desk, desk.run.spec.resources
        self._nodes = read_nodes()
        self._looked = time.monotonic()
        self._waits_since: float | None = None
        self._said, self._said_at = "", 0.0
        self._lost: dict[tuple[int, int], tuple[str, float]] = {}

    @property
    def asked(self) -> dict[str, float]:
        """What one trial takes."""
        return {"cpu": self._resources.cpu, "gpu": self._resources.gpu}

    @property
    def slots(self) -> int:
        """How many trials may be under way now: as fit the nodes, and the sweep's own limit."""
        room = slots(self.asked, self._resources.labels, self._nodes)
        return min(room, self._resources.concurrent or room)

    @property
    def is_waiting(self) -> bool:
        """Whether a trial has no place; no further one should be asked for then."""
        return self._waits_since is not None

    def lost(self, trial: int, attempt: int, node: str) -> None:
        """Note the death of a worker: if its node turns out to be gone, it was not the trial's."""
        self._lost[trial, attempt] = node, time.monotonic()

    def look(self) -> None:
        """Note nodes that came or left, ask trials off nodes that are drained, say who waits."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        self._nodes = read_nodes()
        for node in self._nodes:
            if node.leaving:
                self._desk.handing_over.leave(node.id)
        self._judge_lost(now)
        if not self._desk.unplaced:
            self._end_wait()
            return
        holdings, waiting = _read_groups()
        if self._desk.run.name not in waiting:
            self._end_wait()
            return
        self._waits_since = self._waits_since or now
        if now - self._waits_since > WAIT_S:
            what = describe_wait(self.asked, self._resources.labels, self._nodes, holdings)
            self._say(f"a trial waits for {what}")

    def _judge_lost(self, now: float) -> None:
        staying = {node.id for node in self._nodes if not node.leaving}
        for (trial, attempt), (node, since) in list(self._lost.items()):
            if node not in staying:
                self._desk.run.excuse(trial, attempt, f"its node {node[:8]} left")
            if node not in staying or now - since > NODE_DEATH_S:
                del self._lost[trial, attempt]

    def _end_wait(self) -> None:
        self._waits_since = None
        self._say("")

    def _say(self, text: str) -> None:
        now = time.monotonic()
        began_or_ended = bool(text) != bool(self._said)
        if began_or_ended or (text != self._said and now - self._said_at > SAY_S):
            self._desk.run.wait_for_room(text)
            self._said, self._said_at = text, now


def _read_groups() -> tuple[list[Holding], set[str]]:
    """Return what the placed trials of all sweeps hold, and the sweeps with one that waits."""
    holdings, waiting = [], set()
    for group in placement_group_table().values():
        prefix, _, rest = group["name"].partition(":")
        sweep = rest.rpartition(":")[0]
        if prefix != _PREFIX:
            continue
        if group["state"] == "CREATED":
            for index, bundle in group["bundles"].items():
                node = group["bundles_to_node_id"][index]
                holdings.append(Holding(sweep, node, _amounts(bundle)))
        elif group["state"] != "REMOVED":
            waiting.add(sweep)
    return holdings, waiting


def _amounts(resources: dict[str, Any]) -> dict[str, float]:
    return {kind: float(resources.get(kind.upper(), 0.0)) for kind in ("cpu", "gpu")}
