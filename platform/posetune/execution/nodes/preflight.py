"""Looks at every node of a cluster before a sweep is sent there, and leaves nothing behind.

The driver leaves a mark in the storage; one task on each node looks around, one more on each node
that can hold a trial trains a few steps of every variant. What they find is compared with what the
driver sees.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from posetune.api import BadInputError, Cost, Trainable
from posetune.execution.connection import connected
from posetune.execution.nodes.cluster_room import describe_wait, slots
from posetune.execution.nodes.placement import read_nodes
from posetune.execution.nodes.plan import disk_bytes
from posetune.execution.nodes.probe import (
    DRIVERS,
    Batches,
    Expected,
    Finding,
    StoreLook,
    Surroundings,
    installed,
    leave_mark,
    look_around,
    look_at_store,
    seen,
    try_batches,
)
from posetune.execution.nodes.store_copy import seen_here
from posetune.home import Home
from posetune.spec.sweep import Resources, SweepSpec
from posetune.storage import Storage, StorageError, open_folder
from posetune.storage.store_place import StorePlace
from posetune.study.search.space import most_trials

__all__ = ["DRIVER", "Fault", "NodeReport", "Preflight", "preflight"]

LOOK_S = 120.0
"""Seconds that a node has to look around; importing torch over a network file system is slow."""

STORE_S = 3600.0
"""Seconds that a node has to read the store, which it may have to copy first."""

BATCHES_S = 900.0
"""Seconds that a node has to try all variants, its wait for a free slot included."""

DRIVER = "the driver"
CLUSTER = "the cluster"

GB = 1e9

T = TypeVar("T", Surroundings, StoreLook, Batches)


@dataclass(frozen=True)
class Fault:
    """Something that would stop the sweep, and the node where it was found."""

    node: str
    check: str
    text: str
    """What is wrong and what to do."""

    def __str__(self) -> str:
        return f"{self.node}: {self.check}: {self.text}"


@dataclass(frozen=True)
class NodeReport:
    """A node in the table of a preflight that passed."""

    node: str
    cpu: float
    gpu: float
    trials: int
    """How many trials the node holds at a time."""
    free_bytes: int | None
    """Free bytes of the storage; None where it is not a folder."""
    memory_bytes: int
    epoch_s: float
    """Seconds of an epoch of the default configuration; 0 where no trial fits."""
    peak_bytes: int
    gpu_peak_bytes: int
    mps: str
    """Whether NVIDIA's MPS will be used, and why not, as a line; empty where nobody asks."""


@dataclass(frozen=True)
class Preflight:
    """What the preflight has found."""

    nodes: tuple[NodeReport, ...]
    variants: int
    """Configurations of which each node that holds trials has trained a few steps."""
    disk_bytes: int
    """Most bytes that the sweep may write to the storage at a time."""
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class _Node:
    id: str
    name: str
    cpu: float
    gpu: float
    trials: int


def preflight(
    spec: SweepSpec,
    trainable: type[Trainable],
    *,
    store: str,
    home: Home,
    address: str,
) -> Preflight:
    """Check every node of the cluster that this process joins.

    Args:
        spec: the sweep.
        trainable: the class that it names.
        store: the store's address, as the driver sees it.
        home: where the driver would keep things.
        address: of the cluster, as `ray.init` takes it.

    Raises:
        BadInputError: no cluster answers.
    """
    with home.storage.visited():
        expected, findings = _expect(spec, trainable, store=store, storage=home.storage)
        faults = [Fault(DRIVER, finding.check, finding.text) for finding in findings]
        try:
            with connected(address):
                return _inspect(replace(expected, store=seen_here(expected.store)), faults)
        finally:
            if expected.mark:
                with contextlib.suppress(OSError):
                    expected.storage.remove(expected.mark)


def _expect(
    spec: SweepSpec, trainable: type[Trainable], *, store: str, storage: Storage
) -> tuple[Expected, list[Finding]]:
    """Look around on the driver, and leave its mark in the storage."""
    findings, digest, mark = [], "", f".preflight-{uuid.uuid4().hex[:12]}"
    try:
        digest = trainable.describe_store(open_folder(store)).digest
    except BadInputError as error:
        findings.append(Finding("store", str(error)))
    try:
        storage.prepare()
        leave_mark(storage, mark, who=DRIVERS)
    except (BadInputError, StorageError) as error:  # whose messages say what to do
        findings.append(Finding("storage", str(error)))
        mark = ""
    except OSError as error:
        why = error.strerror or error
        text = f"{storage.where('')}: cannot be written ({why}); make it writable for this user"
        findings.append(Finding("storage", text))
        mark = ""
    expected = Expected(spec, StorePlace(store, digest), storage, mark, installed())
    return expected, findings


def _inspect(expected: Expected, faults: list[Fault]) -> Preflight:
    resources = expected.spec.resources
    nodes = _nodes(resources)
    looks = _ask(nodes, look_around, expected, within_s=LOOK_S, faults=faults)
    faults += _read_back(expected, looks)
    fit = [node for node in nodes if node.trials]
    if not fit:
        wait = describe_wait(_asked(resources), resources.labels, read_nodes(), [])
        text = f"a trial asks for {wait}; lower `resources` in the sweep file, or add nodes"
        faults.append(Fault(CLUSTER, "resources", text))
    answered = [node for node in fit if node in looks]
    stores = _ask(answered, look_at_store, expected, within_s=STORE_S, faults=faults)
    # A node that cannot read the store can try nothing, and the store is among its faults already.
    able = [node for node in stores if not stores[node].findings]
    batches = _ask(
        able if expected.store.digest else [],
        try_batches,
        expected,
        within_s=BATCHES_S,
        faults=faults,
        resources=resources,
    )
    tried = list(batches.values())
    cost = Cost(
        0.0,
        {},
        max((b.cost.checkpoint_bytes for b in tried), default=0),
        max((b.cost.model_bytes for b in tried), default=0),
    )
    trials = most_trials(expected.spec)
    at_once = min(trials, sum(node.trials for node in fit), resources.concurrent or trials)
    pauses = expected.spec.pruner.name == "thaw"
    needed = disk_bytes(trials, at_once, cost, pauses=pauses)
    for node, look in looks.items():
        faults += _check_disk(node, look, expected.storage, needed)
    for node, batch in batches.items():
        faults += _check_memory(node, looks[node], batch, resources)
    return Preflight(
        nodes=tuple(_report(node, looks[node], batches.get(node)) for node in looks),
        variants=max((batch.tried for batch in tried), default=0),
        disk_bytes=needed,
        faults=tuple(faults),
    )


def _nodes(resources: Resources) -> list[_Node]:
    room = {node.id: node for node in read_nodes()}
    nodes = []
    for found in ray.nodes():
        if found["NodeID"] not in room:
            continue
        node = room[found["NodeID"]]
        name = f"node {found['NodeManagerAddress']} ({found['NodeManagerHostname']})"
        cpu, gpu = node.total.get("cpu", 0.0), node.total.get("gpu", 0.0)
        nodes.append(
            _Node(node.id, name, cpu, gpu, slots(_asked(resources), resources.labels, [node]))
        )
    return sorted(nodes, key=lambda node: node.name)


def _asked(resources: Resources) -> dict[str, float]:
    return {"cpu": resources.cpu, "gpu": resources.gpu}


def _ask(
    nodes: Sequence[_Node],
    look: Callable[..., T],
    expected: Expected,
    *,
    within_s: float,
    faults: list[Fault],
    resources: Resources | None = None,
) -> dict[_Node, T]:
    """Run a function on each of the nodes; what goes wrong there, or its findings, become faults.

    Args:
        nodes: where to.
        look: takes `expected` and the node's id; what it returns has `findings`.
        expected: what the driver sees.
        within_s: for all answers.
        faults: is added to.
        resources: what each call takes of its node; nothing by default.
    """
    asked = {
        ray.remote(look)
        .options(
            num_cpus=resources.cpu if resources else 0,
            num_gpus=resources.gpu if resources else 0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        )
        .remote(expected, node.id): node
        for node in nodes
    }
    answers: dict[_Node, T] = {}
    if asked:
        ray.wait(list(asked), num_returns=len(asked), timeout=within_s)
    for call, node in asked.items():
        try:
            answers[node] = ray.get(call, timeout=0.1)
        except GetTimeoutError:
            ray.cancel(call, force=True)
            busy = ", or wait until another sweep has left it" if resources else ""
            text = f"no answer within {within_s:.0f} s; look at it with `ray status`{busy}"
            faults.append(Fault(node.name, "answer", text))
        except RayError as error:
            last = str(error).strip().splitlines()[-1]
            text = f"the check ended with: {last}; the node's Ray logs say more"
            faults.append(Fault(node.name, "answer", text))
        else:
            found = answers[node].findings
            faults += [Fault(node.name, finding.check, finding.text) for finding in found]
    return answers


def _read_back(expected: Expected, looks: Mapping[_Node, Surroundings]) -> list[Fault]:
    """Check that the driver sees the marks that the nodes have left in the storage."""
    storage = expected.storage
    return [
        Fault(
            node.name,
            "storage",
            f"{storage.where('')}: the driver does not see what was written there; "
            "mount the same folder at this path",
        )
        for node, look in looks.items()
        if expected.mark
        and not any(finding.check == "storage" for finding in look.findings)
        and not seen(storage, expected.mark, who=node.id)
    ]


def _check_disk(node: _Node, look: Surroundings, storage: Storage, needed: int) -> list[Fault]:
    if look.free_bytes is None or look.free_bytes >= needed:
        return []
    text = (
        f"{storage.where('')} has {look.free_bytes / GB:.3g} GB free, the sweep may write "
        f"{needed / GB:.3g} GB; make space, or name another folder in POSETUNE_STORAGE"
    )
    return [Fault(node.name, "disk", text)]


def _check_memory(
    node: _Node, look: Surroundings, batches: Batches, resources: Resources
) -> list[Fault]:
    faults = []
    if batches.peak_bytes * node.trials > look.memory_bytes:
        text = (
            f"{node.trials} trials at a time of {batches.peak_bytes / GB:.3g} GB each, it has "
            f"{look.memory_bytes / GB:.3g} GB; raise resources.cpu, so that fewer run at a time, "
            "or lower the batch size"
        )
        faults.append(Fault(node.name, "memory", text))
    share = min(1.0, resources.gpu) * batches.gpu_bytes
    if batches.gpu_peak_bytes > share:
        text = (
            f"a trial takes {batches.gpu_peak_bytes / GB:.3g} GB of the GPU's memory, its share "
            f"is {share / GB:.3g} GB; raise resources.gpu, or lower the batch size"
        )
        faults.append(Fault(node.name, "memory", text))
    return faults


def _report(node: _Node, look: Surroundings, batches: Batches | None) -> NodeReport:
    return NodeReport(
        node=node.name,
        cpu=node.cpu,
        gpu=node.gpu,
        trials=node.trials,
        free_bytes=look.free_bytes,
        memory_bytes=look.memory_bytes,
        epoch_s=batches.cost.epoch_s if batches else 0.0,
        peak_bytes=batches.peak_bytes if batches else 0,
        gpu_peak_bytes=batches.gpu_peak_bytes if batches else 0,
        mps=look.mps if node.trials else "",
    )
