"""Watches the cluster under a running sweep: room for trials, nodes that come or leave, who waits.

Each trial takes a placement group of its own, named after its sweep: so drivers that share a
cluster see who holds what.
"""

from __future__ import annotations

import time
from typing import Any

import ray

from posetune.api import BadInputError
from posetune.execution.driver_context import DriverContext
from posetune.execution.nodes.cluster_room import Node, describe_wait, lacking_slots, slots
from posetune.execution.nodes.gpu_sharing import measure_need, share_now, share_of
from posetune.execution.nodes.scale_up import ScaleUp
from posetune.execution.own_ray import died
from posetune.execution.tune_adapter import (
    TrialRequest,
    dead_ray_processes,
    free_by_node,
    nodes_being_drained,
    read_trial_groups,
)

__all__ = ["ClusterWatch", "measure_share", "read_cluster", "read_nodes"]

_HEAD = "node:__internal_head__"
"""The resource that Ray gives the head node, and no other."""

LOOK_S = 1.0
"""Seconds between two looks at the cluster."""

WAIT_S = 3.0
"""Seconds after which a trial without a place is reported as waiting."""

SAY_S = 30.0
"""Shortest time between two events that say what a trial waits for, in seconds, while it waits."""

NODE_DEATH_S = 60.0
"""Seconds within which Ray notices that a lost worker's whole node is gone; it notices the worker's
own end sooner."""


def read_nodes() -> list[Node]:
    """Return the living nodes."""
    leaving, free = nodes_being_drained(), free_by_node()
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


def read_cluster() -> str:
    """Return what tells this cluster from all others: the id of its head node."""
    heads = [node["NodeID"] for node in ray.nodes() if _HEAD in node["Resources"]]
    return str(heads[-1]) if heads else ""


class ClusterWatch:
    """Looks at the cluster every few seconds, for searcher, scheduler and user."""

    def __init__(self, context: DriverContext) -> None:
        self._context = context
        self._resources = context.run.spec.resources
        self._nodes = read_nodes()
        self._looked = time.monotonic()
        self._waits_since: float | None = None
        self._has_place = False
        """Whether one of the sweep's trials had a place while another waited for one."""
        self._said = ""
        """What a trial waits for, as it was last recorded in the study."""
        self._said_at = 0.0
        self._lost: dict[tuple[int, int], tuple[str, float]] = {}
        self._scale_up = ScaleUp(context.run.name)
        self._look_for_turn()

    @property
    def asked(self) -> dict[str, float]:
        """The resources that a new trial takes."""
        return {"cpu": self._resources.cpu, "gpu": share_now(self._context.run.state)}

    def gpu(self, trial: int) -> float:
        """Return what a trial's next attempt takes of a GPU, or how many.

        After one for which the memory did not suffice, it has a GPU to itself.
        """
        part = share_now(self._context.run.state)
        return max(part, 1.0) if part and self._context.run.trials[trial].full_gpus else part

    def request(self, trial: int) -> TrialRequest:
        """Return what a trial's next attempt asks of Ray."""
        resources = self._resources.model_copy(update={"gpu": self.gpu(trial)})
        return TrialRequest(self._context.run.name, resources)

    def peaked(self, trial: int, peak_bytes: int) -> None:
        """Give later attempts more of a GPU when a trial takes more than any before."""
        run = self._context.run
        if run.shared and peak_bytes > run.state.peak_bytes:
            run.peaked(trial, peak_bytes)

    @property
    def slots(self) -> int:
        """How many trials may run now: as many as fit on the nodes, up to the sweep's own limit."""
        room = slots(self.asked, self._resources.labels, self._nodes)
        return min(room, self._resources.concurrent or room)

    @property
    def is_waiting(self) -> bool:
        """Whether a trial waits for a place; no further trial should be asked for then."""
        return self._waits_since is not None

    @property
    def only_waits(self) -> bool:
        """Whether trials wait for a place and none has one, not even one that still starts."""
        return self.is_waiting and not self._has_place

    def lost(self, trial: int, attempt: int, node: str) -> None:
        """Note the death of a worker: if its node turns out to be gone, the trial is excused."""
        self._lost[trial, attempt] = node, time.monotonic()

    def look(self) -> None:
        """Note nodes that came or left, ask trials off nodes that are drained, say who waits."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        if self.is_ray_dead():
            return
        self._nodes = read_nodes()
        self._look_for_turn()
        for node in self._nodes:
            if node.leaving:
                self._context.preemption.leave(node.id)
        self._judge_lost(now)
        self._ask_for_nodes()
        if not self._context.unplaced:
            self.end_wait()
            return
        holdings, waiting = read_trial_groups()
        if self._context.run.name not in waiting:
            self.end_wait()
            return
        self._waits_since = self._waits_since or now
        self._has_place = any(held.sweep == self._context.run.name for held in holdings)
        if now - self._waits_since > WAIT_S:
            what = describe_wait(self.asked, self._resources.labels, self._nodes, holdings)
            self._say(f"a trial waits for {what}")

    def _look_for_turn(self) -> None:
        self._context.turn.look(fits=slots(self.asked, {}, self._nodes), room=self.slots)

    def _ask_for_nodes(self) -> None:
        """Let a cluster that can grow have a slot for each trial that may be at work."""
        run, limit = self._context.run, self._resources.concurrent
        is_measured = bool(run.shared) or not self._resources.share
        wanted = run.wants if is_measured and not self._context.stop_reason() else 0
        lacking = lacking_slots(
            wanted if limit is None else min(wanted, limit),
            under_way=run.under_way,
            slots=self.slots,
            entitled=self._context.turn.entitled,
        )
        resources = self._resources.model_copy(update={"gpu": share_now(run.state)})
        self._scale_up.ask(lacking, resources, self._nodes)

    def close(self) -> None:
        """Ask the cluster for nothing any more."""
        self._scale_up.ask(0, self._resources, self._nodes)

    def is_ray_dead(self) -> bool:
        """Whether the Ray that this driver started has died; the sweep stops then.

        No node will ever come, and trials that die with it have done nothing wrong.
        """
        dead = dead_ray_processes()
        if dead:
            self._context.stopping.fail(died(dead))
            self._context.preemption.at_work.clear()  # none of them can save or be killed any more
        return bool(dead)

    def _judge_lost(self, now: float) -> None:
        staying = {node.id for node in self._nodes if not node.leaving}
        for (trial, attempt), (node, since) in list(self._lost.items()):
            if node not in staying:
                self._context.run.excuse(trial, attempt, f"its node {node[:8]} left")
            if node not in staying or now - since > NODE_DEATH_S:
                del self._lost[trial, attempt]

    def end_wait(self) -> None:
        """Note that no trial waits for a place; the sweep may wait for its turn."""
        self._waits_since = None
        self._say(self._context.turn.waits_for)

    def _say(self, text: str) -> None:
        now = time.monotonic()
        began_or_ended = bool(text) != bool(self._said)
        if began_or_ended or (text != self._said and now - self._said_at > SAY_S):
            self._context.run.wait_for_room(text)
            self._said, self._said_at = text, now


def measure_share(context: DriverContext) -> None:
    """Find out on a whole GPU how much of one a trial takes, before the first begins.

    Raises:
        BadInputError: the largest configuration cannot be trained there.
    """
    run, resources = context.run, context.run.spec.resources
    if not resources.share or run.shared:
        return
    selector = dict(resources.labels) or None
    probe = ray.remote(measure_need).options(
        num_cpus=resources.cpu, num_gpus=1, label_selector=selector
    )
    call, begun, said = probe.remote(run.spec, context.store), time.monotonic(), False
    while not ray.wait([call], timeout=LOOK_S)[0]:
        if context.stop_reason():
            ray.cancel(call, force=True)
            return
        if not said and time.monotonic() - begun > WAIT_S:
            run.wait_for_room("measuring how much of a GPU a trial takes, on a GPU that is free")
            said = True
    if said:
        run.wait_for_room("")
    need = ray.get(call)
    if isinstance(need, BadInputError):
        raise need
    facts = {"peak_bytes": need.peak, "context_bytes": need.context, "total_bytes": need.total}
    run.share(share_of(need), **facts)


def _amounts(resources: dict[str, Any]) -> dict[str, float]:
    return {kind: float(resources.get(kind.upper(), 0.0)) for kind in ("cpu", "gpu")}
