"""Makes a cluster that has an autoscaler grow to as many slots as a sweep can use.

Ray's autoscaler adds nodes for what waits and has no place. A sweep asks for no trial before there
is a slot for it, because parameters that are chosen later are chosen better; so for each slot that
it lacks, an empty placement group waits in a trial's stead. Ray removes such a group when its
driver ends, however that ends.

The groups ask for a node other than those that are there: so they take no place that a trial, or
another sweep, could have. Once a node has come they all go, and those that still lack a slot come
anew. Their name is not that of a trial, so nobody counts them among those that hold or wait.
"""

from __future__ import annotations

import json
import math
import os
import time
import uuid
from collections.abc import Iterable, Mapping

from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler._private.util import format_readonly_node_type
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.autoscaler.v2.utils import is_autoscaler_v2, is_head_node
from ray.core.generated import autoscaler_pb2
from ray.experimental.internal_kv import _internal_kv_get, internal_kv_get_gcs_client
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from posetune.execution.nodes.cluster_room import Node
from posetune.execution.tune_adapter import TrialRequest
from posetune.spec.sweep import Resources

__all__ = ["GROUP_PREFIX", "ScaleUp", "may_grow"]

GROUP_PREFIX = "posetune-scale-up"
"""Prefix of the names of the placement groups that wait for a slot."""

MOST_AT_ONCE = 64
"""Most slots that are waited for at a time; the rest follow as nodes come. Each is a message to
Ray's head, sent from the driver's loop."""

REFUSED_S = 300.0
"""Seconds until slots are waited for again that the autoscaler cannot give, for example because the
cluster is as large as it may be. Meanwhile it would complain of each one every few seconds."""

_NODE_ID = "ray.io/node-id"
"""The label in which each node has its own id; Ray sets it."""

_KUBERAY_COMMAND = "KUBERAY_GEN_RAY_START_CMD"
"""The variable in which KubeRay's operator tells a pod how its Ray is started."""


class ScaleUp:
    """The slots that a sweep waits for, beyond those of the nodes that are there."""

    def __init__(self, sweep: str) -> None:
        self._sweep = sweep
        self._groups: list[PlacementGroup] = []
        self._asked: tuple[Resources, tuple[str, ...]] | None = None
        """What each group asks for, and the nodes that it is not to be placed on."""
        self._refused_at = -math.inf
        self._may_grow: bool | None = None

    def ask(self, count: int, resources: Resources, nodes: Iterable[Node]) -> None:
        """Wait for slots on further nodes, where the cluster may get some.

        Args:
            count: how many slots; 0 takes everything back.
            resources: what one trial takes.
            nodes: those that are there.
        """
        if count and self._may_grow is None:
            self._may_grow = may_grow(resources.labels)
        if not self._may_grow:
            return
        asked = (resources, tuple(sorted(node.id for node in nodes)))
        if asked != self._asked:
            self._take_back(self._groups)
            self._asked, self._refused_at = asked, -math.inf
        self._take_back(self._groups[count:])
        self._heed_refusals()
        if time.monotonic() - self._refused_at > REFUSED_S:
            for _ in range(len(self._groups), min(count, MOST_AT_ONCE)):
                self._groups.append(self._wait(*asked))

    def _wait(self, resources: Resources, there: Iterable[str]) -> PlacementGroup:
        elsewhere = {_NODE_ID: f"!in({','.join(there)})"}
        group: PlacementGroup = placement_group(
            TrialRequest(self._sweep, resources).bundles,
            name=f"{GROUP_PREFIX}:{self._sweep}:{uuid.uuid4().hex}",
            bundle_label_selector=[{**resources.labels, **elsewhere}],
        )
        return group

    def _heed_refusals(self) -> None:
        """Take back what the newer autoscaler says that it cannot give; the older one says none."""
        if not self._groups:
            return
        reply = autoscaler_pb2.GetClusterStatusReply()  # type: ignore[attr-defined]
        reply.ParseFromString(internal_kv_get_gcs_client().get_cluster_status())
        requests = reply.autoscaling_state.infeasible_gang_resource_requests
        ids = {request.details.partition(":")[0] for request in requests}
        refused = [group for group in self._groups if group.id.hex() in ids]
        if refused:
            self._take_back(refused)
            self._refused_at = time.monotonic()

    def _take_back(self, groups: Iterable[PlacementGroup]) -> None:
        for group in list(groups):
            remove_placement_group(group)
            self._groups.remove(group)


def may_grow(wanted: Mapping[str, str]) -> bool | None:
    """Return whether the cluster has an autoscaler that can add nodes for a trial.

    Every cluster has one; where it was given no configuration, it only watches the nodes. None
    where it has not said anything yet.

    Args:
        wanted: the labels of a node that a trial asks for. Ray's older autoscaler does not know
            them, and would add nodes that no trial can use.
    """
    if _NODE_ID in wanted:
        return False  # no file can name the id of a node that is still to come
    if is_autoscaler_v2(fetch_from_server=True):
        return _newer_adds_nodes()
    return False if wanted else _older_adds_nodes()


def _newer_adds_nodes() -> bool:
    """Return whether Ray's newer autoscaler can add nodes: it gave the head its id in the cloud.

    KubeRay gives its nodes such ids in any case. There the autoscaler runs beside the head, which
    is started without one.
    """
    state = get_cluster_resource_state(internal_kv_get_gcs_client())
    heads = [node for node in state.node_states if is_head_node(node)]
    command = os.environ.get(_KUBERAY_COMMAND)
    runs_beside = command is None or "--no-monitor" in command
    return runs_beside and any(head.instance_id for head in heads)


def _older_adds_nodes() -> bool | None:
    """Return whether Ray's older autoscaler can add nodes; None before its first report.

    The report says of which kind each node is. Where the autoscaler only watches, each node is of a
    kind of its own, made from the node's id.
    """
    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}")
    kinds = (status.get("autoscaler_report") or {}).get("node_type_mapping")
    if not kinds:
        return None
    return any(kind != format_readonly_node_type(node) for node, kind in kinds.items())
