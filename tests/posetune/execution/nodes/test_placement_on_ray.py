"""Sweeps that share a real Ray of several nodes, which come, leave and die."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2
from support import metered
from support.commands import Posetune
from support.sweeps import Driver, Script, events, until, view

from posetune.execution.connection import connected
from posetune.execution.nodes.scale_up import GROUP_PREFIX, may_grow
from posetune.spec.registration import TRAINABLES_VARIABLE
from posetune.study.events import (
    AttemptExcused,
    AttemptPlaced,
    EnergyMeasured,
    HandedOver,
    MemoryPeaked,
    Reported,
    RoomAwaited,
    ShareMeasured,
    TrialEnded,
)
from posetune.study.view import SweepView

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STORE_BYTES = 100 * 1024**2


class Nodes:
    """A head with one core, and nodes that the tests add; each with an address of its own."""

    def __init__(self) -> None:
        self._network = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}"
        self._last = 1
        head = {"num_cpus": 1, "include_dashboard": False, **self._own()}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, kind: str, **room: int) -> Any:
        """Add a node with a label."""
        return self.cluster.add_node(labels={"kind": kind}, **room, **self._own())

    def _own(self) -> dict[str, Any]:
        self._last += 1
        return {
            "node_ip_address": f"{self._network}.{self._last}",
            "object_store_memory": STORE_BYTES,
        }


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    started = Nodes()
    yield started
    started.cluster.shutdown()


Write = Callable[..., Path]


@pytest.fixture
def write(toy_sweep: Write) -> Write:
    """Write the file of a sweep with a name, with `resources` in its words."""

    def named(name: str, resources: str, **sizes: Any) -> Path:
        file = toy_sweep(**sizes)
        text = file.read_text().replace("{cpu: 1", f"{{cpu: 1{resources}")
        own = file.with_name(f"{name}.yaml")
        own.write_text(text)
        return own

    return named


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def found_of(home: Path, name: str) -> SweepView:
    found = view(home, name)
    assert found is not None
    return found


def waits_for(home: Path, name: str) -> str:
    found = view(home, name)
    return "" if found is None else found.waits_for


@pytest.mark.long
def test_sweeps_on_one_cluster_say_what_they_wait_for_and_use_a_node_that_joins(
    write: Write, nodes: Nodes, home: Path, tmp_path: Path
) -> None:
    drivers = {}

    def start(name: str, file: Path) -> None:
        command = ("sweep", file, "--name", name, "--address", nodes.address, "--no-tracking")
        folder = tmp_path / name
        folder.mkdir()
        drivers[name] = Driver(folder, *command, POSETUNE_HOME=str(home))

    script = Script(tmp_path / "script", "wait")
    first = write("first", "", trials=4, max_epochs=2, concurrent=1, script=str(script.file))
    start("first", first)
    drivers["first"].until(script.is_over)
    start("second", write("second", "", trials=2, max_epochs=2))
    start("big", write("big", ", labels: {kind: big}", trials=2, max_epochs=2))
    expected = {
        "second": "other sweeps are served first, by priority and share (posetune queue)",
        "big": "a trial waits for a node with labels {kind: big}; there is 1 with {kind: -}",
    }
    for name, words in expected.items():
        drivers[name].until(lambda name=name, words=words: waits_for(home, name) == words)
    joined = nodes.add("big", num_cpus=4)
    for name in ("second", "big"):
        assert drivers[name].end() == 0, drivers[name].output
        found = found_of(home, name)
        assert found.state == "COMPLETE"
        assert expected[name] in drivers[name].output
        assert found.waits_for == ""
        # On a busy machine it may have asked for a place before it knew of the others.
        assert events(home, RoomAwaited, name)[-1].what == ""
        assert {t.placement["ray_node"] for t in found.trials} == {joined.node_id}
    script.let_go()
    assert drivers["first"].end() == 0, drivers["first"].output
    placed = events(home, AttemptPlaced, "first")
    ends = {event.trial: event.at for event in events(home, TrialEnded, "first")}
    assert len(ends) == 4
    for before, after in pairwise(placed):
        assert after.at > ends[before.trial]  # one at a time, though there was room


def drain(nodes: Nodes, node: str) -> None:
    """Tell Ray that a node is about to be taken away, as `ray drain-node` and autoscalers do."""
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int(1000 * (time.time() + 300))
    accepted, why = GcsClient(nodes.address).drain_node(node, reason, "spot", deadline_ms)
    assert accepted, why


@pytest.mark.long
def test_nodes_that_are_drained_or_die_hand_their_trials_over(
    write: Write, nodes: Nodes, home: Path, tmp_path: Path
) -> None:
    # Within the second epoch its node is drained, within the third the next one dies; the last
    # attempt waits until that is known for what it was.
    script = Script(tmp_path / "script", "go", "wait", "go", "wait", "wait")
    file = write("spot", ", labels: {kind: spot}", trials=1, max_epochs=4, script=str(script.file))
    command = ("sweep", file, "--name", "spot", "--address", nodes.address, "--no-tracking")
    leaving = nodes.add("spot", num_cpus=1)
    driver = Driver(tmp_path, *command)
    driver.until(lambda: len(script.lines) < 4)
    drain(nodes, leaving.node_id)
    waits = driver.until(lambda: waits_for(home, "spot"))
    assert waits.startswith("a trial waits for a node with labels {kind: spot}; ")
    dying = nodes.add("spot", num_cpus=1)
    driver.until(lambda: len(script.lines) < 2)
    nodes.cluster.remove_node(dying, allow_graceful=False)
    last = nodes.add("spot", num_cpus=1)
    (excused,) = driver.until(lambda: events(home, AttemptExcused, "spot"))
    script.let_go()
    assert driver.end() == 0, driver.output
    used = [node.node_id for node in (leaving, dying, last)]
    found = found_of(home, "spot")
    assert (found.state, found.trials[0].epochs) == ("COMPLETE", 4)
    assert len(events(home, HandedOver, "spot")) == 1
    assert [event.facts["ray_node"] for event in events(home, AttemptPlaced, "spot")] == used
    assert (excused.attempt, excused.why) == (2, f"its node {used[1][:8]} left")
    assert events(home, AttemptExcused, "spot") == [excused]


def test_a_cluster_of_fixed_size_is_not_asked_to_grow(
    posetune: Posetune, write: Write, nodes: Nodes, home: Path
) -> None:
    with connected(nodes.address):
        until(lambda: may_grow({}) is not None)
        assert may_grow({}) is False
    file = write("fixed", "", trials=4, max_epochs=1)
    result = posetune("sweep", file, "--name", "fixed", "--address", nodes.address, "--no-tracking")
    assert result.returncode == 0, result.stderr
    groups = nodes.cluster.global_state.placement_group_table().values()
    names = [group["name"].partition(":")[0] for group in groups]
    assert "posetune" in names
    assert GROUP_PREFIX not in names


@pytest.mark.long
def test_trials_share_a_gpu_by_what_was_measured_and_get_more_when_they_outgrow_it(
    posetune: Posetune, write: Write, nodes: Nodes, home: Path
) -> None:
    # The GPU is declared, not there: the toy measures main memory as if it were one of 1 GB.
    nodes.add("gpu", num_cpus=4, num_gpus=1)
    resources = ", gpu: 1, share: true, labels: {kind: gpu}"
    sizes = {"trials": 6, "max_epochs": 3, "concurrent": 2}
    file = write("shared", resources, **sizes, hold_mb=100, hold_later_mb=300)
    result = posetune(
        "sweep", file, "--name", "shared", "--address", nodes.address, "--no-tracking"
    )
    assert result.returncode == 0, result.stderr
    found = found_of(home, "shared")
    assert found.state == "COMPLETE"
    (measured,) = events(home, ShareMeasured, "shared")
    assert 100e6 < measured.peak_bytes < 105e6
    assert (measured.total_bytes, measured.gpu) == (10**9, 0.125)
    assert found.spec.resources.gpu == 0.125
    peaks = [event.peak_bytes for event in events(home, MemoryPeaked, "shared")]
    assert 300e6 < max(peaks) < 410e6  # while it grows it holds both
    given = [event.facts["gpu"] for event in events(home, AttemptPlaced, "shared")]
    assert given[0] == 0.125
    assert given[-1] in (0.3333, 0.5)


@pytest.mark.long
def test_where_a_node_has_no_mps_trials_share_its_gpu_without_and_say_so(
    posetune: Posetune, write: Write, nodes: Nodes
) -> None:
    nodes.add("plain", num_cpus=2, num_gpus=1)
    file = write("plain", ", gpu: 0.5, mps: true, labels: {kind: plain}", trials=1, max_epochs=1)
    words = ("sweep", file, "--name", "plain", "--address", nodes.address, "--no-tracking")
    result = posetune(*words)
    assert result.returncode == 0, result.stderr
    assert "MPS is not used: " in posetune("logs", "plain", "--trial", 0).stderr


@pytest.mark.long
def test_a_trial_that_runs_out_of_memory_has_the_gpu_to_itself_next_time(
    posetune: Posetune, write: Write, nodes: Nodes, home: Path, tmp_path: Path
) -> None:
    nodes.add("small", num_cpus=1, num_gpus=1)
    script = Script(tmp_path / "script", "OutOfMemoryError")  # in the middle of the first epoch
    resources = ", gpu: 1, share: true, labels: {kind: small}"
    sizes = {"trials": 1, "max_epochs": 2}
    file = write("outgrown", resources, **sizes, hold_mb=100, script=str(script.file))
    result = posetune(
        "sweep", file, "--name", "outgrown", "--address", nodes.address, "--no-tracking"
    )
    assert result.returncode == 0, result.stderr
    assert found_of(home, "outgrown").state == "COMPLETE"
    assert script.is_over()
    given = [event.facts["gpu"] for event in events(home, AttemptPlaced, "outgrown")]
    assert given == [0.125, 1.0]


@pytest.mark.long
def test_each_report_of_a_trial_on_a_gpu_that_counts_energy_has_its_part(
    posetune: Posetune,
    write: Write,
    nodes: Nodes,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Ray gives its workers the driver's working folder to import from, and no more of its path.
    shutil.copy(metered.__file__, tmp_path / "metered.py")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(TRAINABLES_VARIABLE, "metered:MeteredToy")
    nodes.add("metered", num_cpus=2, num_gpus=1)
    file = write("metered", ", gpu: 0.5, labels: {kind: metered}", trials=2, max_epochs=2)
    text = file.read_text().replace("posetune.testing.toy:Toy", "metered:MeteredToy")
    file.write_text(text)
    result = posetune(
        "sweep", file, "--name", "metered", "--address", nodes.address, "--no-tracking"
    )
    assert result.returncode == 0, result.stderr
    reports, measured = events(home, Reported, "metered"), events(home, EnergyMeasured, "metered")
    assert len(measured) == len(reports) >= 2
    assert all(one.joules >= 10 * 300.0 for one in measured), "half of what ten steps take"
    found = found_of(home, "metered")
    assert found.energy_j == sum(one.joules for one in measured)
