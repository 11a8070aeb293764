"""Finds out on one node of a cluster what the preflight asks.

Each `check_*` returns its findings, one line of text each: what is wrong and what to do. Nothing
that is looked at is changed; the storage gets a file of a few bytes, which the driver removes, and
a node that does not see the store keeps a copy of it.
"""

from __future__ import annotations

import platform
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from posetune.accelerator import CUDA, Accelerator
from posetune.api import BadInputError, Cost, Trainable, TrialFailedError
from posetune.execution.nodes.mps import look_at_mps
from posetune.execution.nodes.plan import measure
from posetune.execution.nodes.store_copy import store_on_node
from posetune.provenance import versions
from posetune.spec.loading import default_params, vary_one_by_one
from posetune.spec.parameters import FloatRange, Scalar
from posetune.spec.registration import load_trainable
from posetune.spec.sweep import SweepSpec
from posetune.storage import Folder, Storage, StorageError, open_folder
from posetune.storage.store_place import StorePlace
from posetune.trial.run import require_device

__all__ = [
    "DRIVERS",
    "Batches",
    "Expected",
    "Finding",
    "StoreLook",
    "Surroundings",
    "check_storage",
    "check_store",
    "check_versions",
    "installed",
    "leave_mark",
    "look_around",
    "seen",
    "try_batches",
    "variants",
]

DRIVERS = "driver"
"""Name of the mark that the driver leaves in the storage."""

MOST_VARIANTS = 32
"""Most configurations that are tried; of more, this many are taken at equal distances."""

SETTLE_S = 5.0
"""Seconds that a network file system may take to show what another node has written."""


@dataclass(frozen=True)
class Finding:
    """Something on this node that would stop the sweep."""

    check: str
    text: str
    """What is wrong and what to do."""


@dataclass(frozen=True)
class Expected:
    """What the driver sees, for the nodes to compare with; plain values that travel."""

    spec: SweepSpec
    store: StorePlace
    """Where the store is; its digest is empty where the driver cannot read it."""
    storage: Storage
    mark: str
    """Name in storage below which all marks lie; empty where the driver could not leave its own."""
    versions: Mapping[str, str]
    """Versions of Python and of the packages, by name."""


@dataclass(frozen=True)
class Surroundings:
    """Says what a node has found out about itself."""

    host: str
    free_bytes: int | None
    """Free bytes of the storage; None where it is not a folder."""
    memory_bytes: int
    mps: str
    """Whether NVIDIA's MPS will be used here, and why not, as a line; empty where nobody asks."""
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class StoreLook:
    """Says whether a node reads the store."""

    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Batches:
    """Says what time and memory the batches of all variants took on a node."""

    tried: int
    cost: Cost
    """Cost of a trial of the default configuration; its sizes are the largest of all variants."""
    peak_bytes: int
    """Highest main memory of the process, in bytes."""
    gpu_peak_bytes: int
    gpu_bytes: int
    """Memory of the whole GPU, in bytes; 0 without one."""
    findings: tuple[Finding, ...]


def look_around(expected: Expected, node: str) -> Surroundings:
    """Check versions and storage on this node.

    Args:
        expected: what the driver sees.
        node: the name of the file that this node leaves in the storage.
    """
    findings = [
        *check_versions(expected.versions, installed()),
        *(check_storage(expected.storage, expected.mark, node=node) if expected.mark else ()),
    ]
    return Surroundings(
        host=socket.gethostname(),
        free_bytes=_free(expected.storage),
        memory_bytes=_memory(),
        mps=look_at_mps() if expected.spec.resources.mps else "",
        findings=tuple(findings),
    )


def look_at_store(expected: Expected, node: str) -> StoreLook:
    """Bring the store to this node if need be, and compare it with the driver's."""
    return StoreLook(tuple(check_store(load_trainable(expected.spec.trainable), expected)))


def installed() -> dict[str, str]:
    """Return the versions of Python and of all that we depend on."""
    return {"python": platform.python_version(), **versions()}


def check_versions(expected: Mapping[str, str], found: Mapping[str, str]) -> list[Finding]:
    """Compare what is installed with what the driver has."""
    differ = [
        f"{name} {found.get(name, 'not installed')} (the driver has {version})"
        for name, version in expected.items()
        if found.get(name, "not installed") != version
    ]
    if not differ:
        return []
    remedy = "install the same with pip install --constraint cluster/constraints.txt"
    return [Finding("versions", f"{', '.join(differ)}; {remedy}")]


def check_storage(storage: Storage, mark: str, *, node: str) -> list[Finding]:
    """Look for the driver's mark, and leave one for it.

    Args:
        storage: as the driver opened it.
        mark: the name below which all leave theirs.
        node: the name of this node's.
    """
    where = storage.where("")
    try:
        if not seen(storage, mark, who=DRIVERS):
            return [
                Finding(
                    "storage",
                    f"{where}: what the driver has written is not there; mount the driver's folder "
                    "at this path (--home or POSETUNE_STORAGE name it)",
                )
            ]
        leave_mark(storage, mark, who=node)
    except StorageError as error:  # whose message says what to do
        return [Finding("storage", str(error))]
    except OSError as error:
        remedy = "let the user that runs Ray write there"
        why = error.strerror or error
        return [Finding("storage", f"{where}: cannot be written ({why}); {remedy}")]
    return []


def leave_mark(storage: Storage, mark: str, *, who: str) -> None:
    """Write a little to the storage, as a checkpoint is written."""
    with storage.writing(f"{mark}/{who}") as folder:
        (folder / who).write_text(who, encoding="utf-8")


def seen(storage: Storage, mark: str, *, who: str) -> bool:
    """Return whether a mark is in the storage, or appears within `SETTLE_S`."""
    deadline = time.monotonic() + SETTLE_S
    while not storage.exists(f"{mark}/{who}/{who}"):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def check_store(trainable: type[Trainable], expected: Expected) -> list[Finding]:
    """Read the store's description and compare its digest with the driver's."""
    store = expected.store
    if not store.digest:
        return []  # the driver cannot read the store either, which is a fault of its own
    try:
        address = store_on_node(store, trainable)
    except (BadInputError, StorageError) as error:  # whose messages say what to do
        return [Finding("store", str(error))]
    try:
        digest = trainable.describe_store(open_folder(address)).digest
    except BadInputError as error:
        return [Finding("store", f"{error}; put the store there, or mount its folder")]
    if digest != store.digest:
        return [
            Finding(
                "store",
                f"{store.address}: has digest {digest[:12]}, the driver's has "
                f"{store.digest[:12]}; put the same store on every node, or nothing there",
            )
        ]
    return []


def variants(spec: SweepSpec, defaults: Mapping[str, Scalar]) -> list[dict[str, Scalar]]:
    """Return the defaults, then one value changed in each: all that may change a shape.

    A range of real numbers is a weight or a rate: it changes none.
    """
    counted = {n: p for n, p in spec.search.items() if not isinstance(p, FloatRange)}
    found = vary_one_by_one(spec.model_copy(update={"search": counted}), defaults)
    if len(found) <= MOST_VARIANTS:
        return found
    last = len(found) - 1
    return [found[round(i * last / (MOST_VARIANTS - 1))] for i in range(MOST_VARIANTS)]


def try_batches(expected: Expected, node: str) -> Batches:
    """Train a few steps of every variant on this node, in this process."""
    spec = expected.spec
    trainable = load_trainable(spec.trainable)
    try:
        accelerator: Accelerator = getattr(trainable, "accelerator", CUDA)
        device = require_device(spec.resources, accelerator)
    except BadInputError as error:
        return Batches(0, Cost(0.0, {}, 0, 0), 0, 0, 0, (Finding("gpu", str(error)),))
    defaults = default_params(spec, trainable.config_model)
    costs: list[Cost] = []
    findings: list[Finding] = []
    everything = variants(spec, defaults)
    gpu_peak = gpu_bytes = 0
    for params in everything:
        changed = {n: v for n, v in params.items() if v != defaults[n]}
        what = ", ".join(f"{name}={value}" for name, value in changed.items()) or "the defaults"
        try:
            store = open_folder(store_on_node(expected.store, trainable))
            if spec.resources.gpu:
                accelerator.reset()  # a trial has a process of its own
            costs.append(measure(spec, trainable, params, store=store, device=device))
            if spec.resources.gpu:
                memory = accelerator.memory()
                gpu_peak, gpu_bytes = max(gpu_peak, memory.peak), memory.total
        except Exception as error:  # noqa: BLE001 - whatever a model raises, the others are tried
            findings.append(Finding("batch", f"{what}: {_explained(error)}"))
            if not changed:
                break  # every variant would fail alike
    first = costs[0] if costs else Cost(0.0, {}, 0, 0)
    largest = Cost(
        first.epoch_s,
        first.stages_s,
        max((cost.checkpoint_bytes for cost in costs), default=0),
        max((cost.model_bytes for cost in costs), default=0),
    )
    return Batches(len(costs), largest, _peak(), gpu_peak, gpu_bytes, tuple(findings))


def _explained(error: Exception) -> str:
    if isinstance(error, BadInputError | TrialFailedError | StorageError):
        return str(error)
    line = next(iter(str(error).strip().splitlines()), "no message")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory ({line}); lower the batch size, or give a trial more of the GPU"
    return f"{type(error).__name__}: {line}; posetune train with these values there says where"


def _free(storage: Storage) -> int | None:
    if not isinstance(storage, Folder):
        return None
    root = storage.root
    return shutil.disk_usage(next(f for f in (root, *root.parents) if f.exists())).free


def _memory() -> int:
    """Return the memory that this node may use, as its control group limits it."""
    pages = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()[0].split()
    limits = [int(pages[1]) * 1024]
    group = Path("/sys/fs/cgroup/memory.max")
    if group.exists() and (text := group.read_text(encoding="ascii").strip()).isdigit():
        limits.append(int(text))
    return min(limits)


def _peak() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
