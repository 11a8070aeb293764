"""Sweeps on real Ray clusters that grow, by both of Ray's autoscalers, on one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray._private.state import GlobalState
from ray._raylet import GcsClientOptions
from support.ray_nodes import start_head
from support.sweeps import Driver, Script, events, open_study, until

from posetune.execution.connection import connected
from posetune.execution.nodes.scale_up import GROUP_PREFIX, may_grow
from posetune.study.events import TrialAsked, TrialEnded
from posetune.study.sharing.queue import read_queue

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

MOST = 3
"""The nodes that the autoscaler may add; each holds one trial."""

NEWER_ALONE = pytest.mark.parametrize("cluster", ["newer"], indirect=True)
"""Of tests of what hangs on no autoscaler, or which the older one cannot do."""

Write = Callable[..., Path]


class Grown:
    """A head without a slot, and what stands on its cluster, seen from outside."""

    def __init__(self, address: str, *, is_newer: bool) -> None:
        self.address, self.is_newer = address, is_newer
        self._state = GlobalState()
        self._state._initialize_global_state(
            GcsClientOptions.create(
                address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
            )
        )

    @property
    def workers(self) -> int:
        """How many nodes there are besides the head."""
        return sum(node["Alive"] for node in self._state.node_table()) - 1

    @property
    def kinds(self) -> list[str]:
        """The labels `kind` of the nodes besides the head."""
        nodes = (node for node in self._state.node_table() if node["Alive"])
        return [node["Labels"]["kind"] for node in nodes if "kind" in node["Labels"]]

    def groups(self, sweep: str) -> dict[str, bool]:
        """Whether each placement group still stands that was made to grow for a sweep."""
        return {
            group["name"]: group["state"] != "REMOVED"
            for group in self._state.placement_group_table().values()
            if group["name"].startswith(f"{GROUP_PREFIX}:{sweep}:")
        }

    @property
    def is_asked(self) -> bool:
        """Whether anything waits for a place, or has one."""
        groups = self._state.placement_group_table().values()
        return any(group["state"] != "REMOVED" for group in groups)


@pytest.fixture(scope="module", params=["older", "newer"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Grown]:
    is_newer = request.param == "newer"
    with start_head(0, grows_by=MOST, is_newer=is_newer) as address:
        yield Grown(address, is_newer=is_newer)


@pytest.fixture
def grown(cluster: Grown) -> Iterator[Grown]:
    """The cluster, without the nodes of the test before."""
    until(lambda: not cluster.workers)
    yield cluster
    Driver.kill_all()


def begin(file: Path, name: str, grown: Grown, folder: Path, **environment: str) -> Driver:
    file.write_text(file.read_text().replace("name: asha", "name: none"))
    words = ("sweep", file, "--name", name, "--address", grown.address, "--no-tracking")
    return Driver(folder, *words, **environment)


def test_a_lone_sweep_makes_the_cluster_grow_chooses_no_trial_early_and_lets_go(
    toy_sweep: Write, grown: Grown, tmp_path: Path
) -> None:
    home, beside = tmp_path / "home", tmp_path / "beside"
    script = Script(tmp_path / "script", *["wait"] * MOST)
    file = toy_sweep(trials=MOST + 2, max_epochs=1, script=str(script.file))
    driver = begin(file, "lone", grown, tmp_path)
    seen: set[tuple[int, int]] = set()

    def are_all_at_work() -> bool:
        asked = len(events(home, TrialAsked))
        seen.add((asked, grown.workers))
        return script.is_over()

    driver.until(lambda: grown.groups("lone"))  # before any node has come
    driver.until(are_all_at_work)
    assert all(asked <= max(1, workers) for asked, workers in seen), seen
    assert (len(events(home, TrialAsked)), grown.workers) == (MOST, MOST)
    if grown.is_newer:  # it says that it cannot give more
        driver.until(lambda: not any(grown.groups("lone").values()))
    script.file.write_text(f"wait {beside}\n" * 2)
    script.let_go()
    driver.until(script.is_over)  # two are left, in the middle of their epochs
    driver.until(lambda: grown.workers == 2)
    assert not any(grown.groups("lone").values())
    beside.touch()
    assert driver.end() == 0, driver.output
    assert [end.state for end in events(home, TrialEnded)] == ["COMPLETE"] * (MOST + 2)
    until(lambda: not grown.is_asked and not grown.workers)


def test_a_driver_that_is_killed_leaves_no_demand_behind(
    toy_sweep: Write, grown: Grown, tmp_path: Path
) -> None:
    script = Script(tmp_path / "script", *["wait"] * MOST)
    file = toy_sweep(trials=MOST, max_epochs=1, script=str(script.file))
    driver = begin(file, "killed", grown, tmp_path)
    driver.until(lambda: any(grown.groups("killed").values()))
    driver.kill()
    until(lambda: not grown.is_asked and not grown.workers)


@NEWER_ALONE
def test_two_sweeps_of_a_study_grow_side_by_side_and_share_what_has_come(
    toy_sweep: Write, grown: Grown, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    scripts = [Script(tmp_path / f"script-{name}", "wait", "wait") for name in ("one", "two")]
    drivers = []
    for name, script in zip(("one", "two"), scripts, strict=True):
        (tmp_path / name).mkdir()
        file = toy_sweep(trials=2, max_epochs=1, script=str(script.file))
        own = file.rename(tmp_path / name / "toy.yaml")
        drivers.append(begin(own, name, grown, tmp_path / name, POSETUNE_HOME=str(home)))
        drivers[-1].until(lambda name=name: events(home, TrialAsked, name))

    def are_shared() -> bool:
        with open_study(home) as database:
            queue = read_queue(database)
        parts = [entry.entitled or 0 for entry in queue]
        return sum(entry.holds for entry in queue) == sum(parts) == MOST and min(parts) > 0

    drivers[0].until(are_shared)
    for script in scripts:
        script.let_go()
    for driver in drivers:
        assert driver.end() == 0, driver.output


@NEWER_ALONE
def test_nodes_come_that_have_the_labels_of_a_sweep(
    toy_sweep: Write, grown: Grown, tmp_path: Path
) -> None:
    script = Script(tmp_path / "script", "wait", "wait")
    file = toy_sweep(trials=2, max_epochs=1, script=str(script.file))
    file.write_text(file.read_text().replace("{cpu: 1", "{cpu: 1, labels: {kind: rare}"))
    driver = begin(file, "labelled", grown, tmp_path)
    driver.until(script.is_over)
    assert grown.kinds == ["rare"] * 2
    script.let_go()
    assert driver.end() == 0, driver.output


@NEWER_ALONE
def test_a_sweep_with_a_limit_makes_the_cluster_grow_up_to_that(
    toy_sweep: Write, grown: Grown, tmp_path: Path
) -> None:
    file = toy_sweep(trials=4, max_epochs=1, concurrent=1)
    driver = begin(file, "limited", grown, tmp_path)
    assert driver.end() == 0, driver.output
    # One, if the cluster is looked at before the first trial is asked for.
    assert len(grown.groups("limited")) <= 1


def test_whether_a_cluster_can_grow_is_told_apart(
    grown: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(grown.address):
        until(lambda: may_grow({}) is not None)
        assert may_grow({}) is True
        # The older autoscaler does not know labels.
        assert may_grow({"kind": "h100"}) is grown.is_newer
        assert may_grow({"ray.io/node-id": "!a"}) is False
        for command, can in (("ray start --head", False), ("ray start --no-monitor", True)):
            monkeypatch.setenv("KUBERAY_GEN_RAY_START_CMD", command)
            assert may_grow({}) is (can or not grown.is_newer)
