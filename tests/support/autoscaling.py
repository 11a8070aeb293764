"""What makes Ray's autoscaler add nodes that are processes of this machine.

Ray has `AutoscalingCluster` for that; but it ends every other Ray of the machine.
"""

from __future__ import annotations

import json
from pathlib import Path

from support.ports import find_free_port

__all__ = ["environment", "write_config"]

HEAD_ID, HEAD_TYPE = "f" * 51 + "00000", "ray.head.default"
"""How Ray's provider of nodes on one machine calls the head, and its kind of node."""

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
"""Named by its class: by its type, `fake_multinode`, Ray looks for a file that its wheel lacks."""

IDLE_S = 10.0
"""Seconds after which a node is taken away that does nothing."""

NOTHING_TO_SET_UP = {
    **{name: {} for name in ("auth", "file_mounts")},
    **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
    **{
        f"{name}_commands": [] for name in ("initialization", "setup", "head_setup", "worker_setup")
    },
    **{f"{name}_start_ray_commands": [] for name in ("head", "worker")},
}
"""What a configuration must name, though no machine is set up."""


def write_config(file: Path, address: str, most: int) -> None:
    """Write the configuration of an autoscaler that adds up to `most` nodes of one core.

    They have the label `kind: plain` or `kind: rare`.
    """
    worker = {
        "resources": {"CPU": 1, "object_store_memory": 80_000_000},
        "node_config": {},
        "max_workers": most,
    }
    config = {
        "cluster_name": "grows",
        "max_workers": most,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE_S / 60,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "gcs_address": address,
            "head_node_id": HEAD_ID,
            "use_node_id_as_ip": True,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            **{kind: {**worker, "labels": {"kind": kind}} for kind in ("plain", "rare")},
        },
        "head_node_type": HEAD_TYPE,
        **NOTHING_TO_SET_UP,
    }
    file.write_text(json.dumps(config))


def environment(*, is_newer: bool) -> dict[str, str]:
    """What the environment of such a head holds; `is_newer` chooses between Ray's two."""
    names = ("RAY_CLOUD_INSTANCE_ID", "RAY_OVERRIDE_NODE_ID_FOR_TESTING")
    newer = {"RAY_enable_autoscaler_v2": "1", **dict.fromkeys(names, HEAD_ID)}
    return {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "AUTOSCALER_METRIC_PORT": str(find_free_port()),
        **(newer if is_newer else {}),
    }
